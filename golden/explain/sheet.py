"""The sheet: every map of an explanation with its scale, as one PNG and as one HTML file.

The HTML file holds its pictures and asks for nothing else; it follows the reader's light or dark
colours and fits a phone. Colour maps are safe for the colour-blind.
"""

import base64
import io
import textwrap
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_hex
from matplotlib.figure import Figure
from PIL import Image

from golden.metrics import binary

__all__ = ["Panel", "Scale", "Section", "sections", "write_sheet"]

MASK_COLOUR  = (255, 200, 0)        # amber and sky blue differ for everyone
TRUTH_COLOUR = (86, 180, 233)
COLUMNS      = 5
SHARE        = 99.0     # percentile that the ends of gradient maps are set to: few pixels are huge
HOT, LOST    = "attune-hot", "attune-lost"      # light throughout, as the frames below are dark
HEAT         = 0.8      # opacity of a map over the frame, where it is largest
HEADING      = 0.62     # inches of a section's heading in the PNG
PANEL        = 3.3      # and of its row of panels
CAPTION      = 0.2      # and of a line below them
LETTERS      = 36       # of such a line
SEAM         = (150, 150, 150)      # between superpixels
PIXELS       = 440      # rows that a picture has at least
LINE         = 3        # of them, how thick an outline is
THIN         = 1        # and over a map, which may lie along it


for _name, _colours in ((HOT, ["#ffffff", "#ffb3dc", "#ff5ab4"]),
                        (LOST, ["#3fc0ff", "#b9e7ff", "#ffffff", "#ffb3dc", "#ff5ab4"])):
    colormaps.register(LinearSegmentedColormap.from_list(_name, _colours), force=True)


@dataclass(frozen=True)
class Scale:
    """A colour map, the values at its ends, and what they are values of."""
    colours: str
    low: float
    high: float
    meaning: str

    def paint(self, values_HW):
        """Colours of values, uint8 H x W x 3."""
        share_HW = np.clip((values_HW - self.low) / (self.high - self.low), 0, 1)
        return np.uint8(np.rint(colormaps[self.colours](share_HW)[..., :3] * 255))

    def over(self, values_HW, frame_HWC):
        """The same over a frame, fading out towards 0: with the root, so that little is seen."""
        most = max(abs(self.low), abs(self.high))
        weight_HW1 = HEAT * np.sqrt(np.clip(np.abs(values_HW) / most, 0, 1))[..., None]
        mixed_HWC = weight_HW1 * self.paint(values_HW) + (1 - weight_HW1) * frame_HWC
        return np.uint8(np.rint(mixed_HWC))

    @property
    def ends(self):
        """Both ends as text."""
        return [f"{end:,.0f}" if abs(end) >= 100 else f"{end:.3g}" for end in (self.low, self.high)]

    @property
    def css(self):
        """The colour map from left to right, as a CSS gradient."""
        stops = colormaps[self.colours](np.linspace(0, 1, 17))
        return f"linear-gradient(to right, {', '.join(map(to_hex, stops))})"


@dataclass(frozen=True)
class Panel:
    """One picture, uint8 H x W x 3, its title, one line about it, and its scale if it has one."""
    title: str
    caption: str
    pixels_HWC: np.ndarray
    scale: Scale | None = None

    @property
    def source(self):
        """The picture as a data URI."""
        buffer = io.BytesIO()
        Image.fromarray(self.pixels_HWC).save(buffer, "PNG", optimize=True)
        return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


@dataclass(frozen=True)
class Section:
    """Panels of one kind, and what they show."""
    title: str
    text: str
    panels: tuple[Panel, ...] = ()


def sections(image_CHW, explanation, occlusion, truth_HW=None):
    """What is on the sheet, in order; ``image_CHW`` is the uint8 frame, ``truth_HW`` boolean."""
    times = -(-PIXELS // max(image_CHW.shape[1:]))
    shape = [times * side for side in image_CHW.shape[1:]]
    frame_HWC = _enlarge(image_CHW.permute(1, 2, 0).numpy(), shape)
    lesion_HW = _enlarge(binary(explanation.confidence_HW).numpy(), shape)

    def heat(title, caption, values_HW, scale, label_HW=None):
        """A map over the frame, with the mask's outline, and seams between the parts of a frame."""
        mixed_HWC = scale.over(_enlarge(values_HW.numpy(), shape), frame_HWC)
        if label_HW is not None:
            mixed_HWC = _seams(mixed_HWC, _enlarge(label_HW.numpy(), shape))
        return Panel(title, caption, _outline(mixed_HWC, lesion_HW, MASK_COLOUR, THIN), scale)

    def painted(title, caption, values_HW, scale):
        """A map alone."""
        return Panel(title, caption, scale.paint(_enlarge(values_HW.numpy(), shape)), scale)

    outlined_HWC = _outline(frame_HWC, lesion_HW, MASK_COLOUR)
    outlines = "amber: the mask" if explanation.found else "no pixel is called lesion"
    if truth_HW is not None:
        outlined_HWC = _outline(outlined_HWC, _enlarge(truth_HW.numpy(), shape), TRUTH_COLOUR)
        outlines += "; blue: the truth"
    saliency = Scale("magma", 0.0, _percentile(explanation.saliency_HW), "absolute gradient")
    guided = _both_ways("PuOr", _percentile(explanation.guided_HW.abs()), "guided gradient")
    over = ("the pixels that the mask calls lesion" if explanation.found
            else "all pixels, since the mask is empty")
    decision = Section(
        "Decision", "What the network says, how sure it is, and which pixels that depends on. The "
        f"score is the sum of the mask's logits over {over}.", (
            Panel("Frame", outlines, outlined_HWC),
            painted("Confidence", "probability of lesion; 0.5 and more is the mask",
                    explanation.confidence_HW, Scale("viridis", 0.0, 1.0, "probability")),
            painted("Saliency", "how much the score changes with each pixel's grey",
                    explanation.saliency_HW, saliency),
            painted("Guided backpropagation", "the same with negative gradients stopped at every "
                    "ReLU", explanation.guided_HW, guided)))
    return [decision, _hiding(explanation, occlusion, heat), *_gates(explanation, heat, painted),
            _levels(explanation, painted)]


def _hiding(explanation, occlusion, heat):
    """What the score loses where parts of the frame are hidden, by windows and by superpixels."""
    lost = _both_ways(LOST, _most(explanation.occlusion_HW.abs()), "score lost")
    lime, side = explanation.lime, occlusion.window
    weight_HW = lime.weight_N[lime.label_HW]
    added = _both_ways(LOST, _most(weight_HW.abs()), "score added")
    return Section(
        "Hidden parts", "What the score owes to parts of the frame, found by hiding them behind "
        "the frame's mean.", (
            heat("Occlusion sensitivity", f"score lost when a {side} x {side} window, stride "
                 f"{occlusion.stride}, hides pixels", explanation.occlusion_HW, lost),
            heat("LIME on superpixels", f"score that showing each of {len(lime.weight_N)} adds, by "
                 f"a linear model of {lime.samples} frames with half of them hidden; its R² on "
                 f"frames left out is {lime.explained:.2f}", weight_HW, added, lime.label_HW)))


def _gates(explanation, heat, painted):
    """Grad-CAM and alpha of every gate, or that there is none."""
    if not explanation.alpha:
        return [Section("Attention gates", "This network has none, so there are no attention maps "
                                           "and no Grad-CAM on gates.")]
    cams = []
    for name, cam_HW in explanation.grad_cam.items():
        scale = Scale(HOT, 0.0, _percentile(cam_HW[cam_HW > 0]) if cam_HW.any() else 1.0,
                      "gradient times activation")
        cams.append(heat(f"Gate {name.removeprefix('gated')}",
                         f"{_shape(cam_HW)}; {_raising(cam_HW)} the score",
                         cam_HW, scale))
    alphas = [painted(f"Gate {name.removeprefix('alpha')}", _shape(alpha_HW), alpha_HW,
                      Scale("cividis", 0.0, 1.0, "alpha"))
              for name, alpha_HW in explanation.alpha.items()]
    return [Section("Grad-CAM of the attention gates",
                    "Where what a gate lets through raises the score, from the coarsest gate to "
                    f"the finest. Colours end at the {SHARE:.0f}th percentile of what is above 0.",
                    tuple(cams)),
            Section("Attention maps", "What each gate multiplies its skip by: 0 stops it, 1 lets "
                                      "it through; a mean where channels have their own.",
                    tuple(alphas))]


def _levels(explanation, painted):
    """Mean activation per encoder level."""
    panels = []
    for level, (name, mean_HW) in enumerate(explanation.encoder.items(), 1):
        low, most = float(mean_HW.min()), _most(mean_HW)
        scale = Scale("viridis", low if low < most else 0.0, most, "mean activation")
        panels.append(painted(f"Level {level}, {name}", _shape(mean_HW), mean_HW, scale))
    return Section("Encoder activations", "Mean over the channels of each level's result.",
                   tuple(panels))


def write_sheet(folder, title, facts, parts):
    """Write ``explanation.png`` and ``explanation.html`` to ``folder``; returns both paths.

    ``facts`` are lines under the title, ``parts`` the sections.
    """
    folder = Path(folder)
    page = _environment().get_template("sheet.html").render(title=title, facts=facts, parts=parts)
    figure = _figure(title, facts, parts)
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / "explanation.png", folder / "explanation.html"
    figure.savefig(paths[0], dpi=110)
    paths[1].write_text(page, encoding="utf-8")
    return paths


def _environment():
    return Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True,
                       undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def _figure(title, facts, parts):
    heights = [HEADING + _height(part.panels) for part in parts]
    top = 0.55 + 0.22 * len(facts)
    figure = Figure(figsize=(2.75 * COLUMNS, top + sum(heights)), layout="constrained")
    header, *rows = figure.subfigures(1 + len(parts), 1, height_ratios=[top, *heights])
    header.text(0.01, 0.92, title, fontsize=17, weight="bold", va="top")
    header.text(0.01, 0.92 - 0.32 / top, "\n".join(facts), fontsize=10, va="top", color="#444444")
    for row, part, height in zip(rows, parts, heights, strict=True):
        row.text(0.01, 1 - 0.12 / height, part.title, fontsize=13, weight="bold", va="top")
        row.text(0.01, 1 - 0.38 / height, part.text, fontsize=10, va="top", color="#444444")
        if part.panels:
            inner = row.subfigures(2, 1, height_ratios=[HEADING, height - HEADING])[1]
            for column, panel in enumerate(part.panels, 1):
                _draw(inner, inner.add_subplot(1, COLUMNS, column), panel)
    return figure


def _height(panels):
    """Inches of a row of panels, with their captions."""
    lines = [len(textwrap.wrap(panel.caption, LETTERS)) for panel in panels]
    return PANEL + CAPTION * max(lines) if panels else 0.0


def _draw(figure, axes, panel):
    axes.imshow(panel.pixels_HWC)
    axes.set_title(panel.title, fontsize=10)
    axes.set_axis_off()
    caption = textwrap.fill(panel.caption, LETTERS)
    if panel.scale:
        scale = panel.scale
        bar = figure.colorbar(ScalarMappable(Normalize(scale.low, scale.high), scale.colours),
                              ax=axes, orientation="horizontal", fraction=0.05, pad=0.03)
        bar.set_label(f"{scale.meaning}\n{caption}", fontsize=8)
        bar.ax.tick_params(labelsize=7)
        bar.locator.set_params(nbins=4)
    else:
        axes.text(0.5, -0.04, caption, fontsize=8, ha="center", va="top",
                  transform=axes.transAxes)


def _outline(pixels_HWC, region_HW, colour, line=LINE):
    """A picture with the border of a region drawn into it."""
    inside_HW, (rows, columns) = region_HW, region_HW.shape
    for _ in range(line):
        padded_HW = np.pad(inside_HW, 1)
        inside_HW = np.logical_and.reduce([
            padded_HW[y:y + rows, x:x + columns]
            for y, x in ((0, 1), (1, 0), (1, 1), (1, 2), (2, 1))])
    marked_HWC = pixels_HWC.copy()
    marked_HWC[region_HW & ~inside_HW] = colour
    return marked_HWC


def _seams(pixels_HWC, label_HW):
    """A picture with lines between parts of different numbers drawn into it."""
    padded_HW = np.pad(label_HW, ((0, 1), (0, 1)), mode="edge")
    marked_HWC = pixels_HWC.copy()
    marked_HWC[(label_HW != padded_HW[1:, :-1]) | (label_HW != padded_HW[:-1, 1:])] = SEAM
    return marked_HWC


def _enlarge(values_HW, shape):
    """A map of ``shape``, in blocks: its true resolution stays visible."""
    rows, columns = (side // small for side, small in zip(shape, values_HW.shape, strict=False))
    return values_HW.repeat(rows, 0).repeat(columns, 1)


def _raising(cam_HW):
    """How much of a map is above 0, in words."""
    share = 100 * float((cam_HW > 0).float().mean())
    if not share:
        return "nothing raises"
    return "less than 0.1 % raises" if share < 0.1 else f"{share:.1f} % raises"


def _shape(values_HW):
    return "{} x {}".format(*values_HW.shape)


def _both_ways(colours, most, meaning):
    return Scale(colours, -most, most, meaning)


def _most(values_HW):
    """Largest value; 1 for a map that is all zero."""
    return float(values_HW.max()) or 1.0


def _percentile(values_HW):
    return float(np.percentile(values_HW.numpy(), SHARE)) or _most(values_HW)
