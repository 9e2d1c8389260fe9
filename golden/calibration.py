"""Scale and zero point of every tensor, from the values that the float network takes on frames.

Scales clip where the squared error is least. Tensors that a concatenation joins share one scale, as
do those that pooling and upsampling copy. Where everything that reads a tensor has weights or
multipliers per channel, its channels are equalised exactly: each is scaled to fill the range of the
tensor, and the weights or multipliers that read it are divided by the same.
"""

import math

import torch

from golden.errors import InputError
from golden.names import CLIPPINGS

__all__ = ["Calibration", "FRAME_SCALE", "SIGMOID_SCALE"]

PERCENTILE = 0.999              # of values that "percentile" keeps, at either end

FRAME_SCALE = 1 / 255
SIGMOID_SCALE = 1 / 256
FIXED = {"input": FRAME_SCALE, "sigmoid": SIGMOID_SCALE, "classes": SIGMOID_SCALE}
COPIES = ("max_pool", "upsample", "concat")
SAMPLES = 1 << 17               # values kept per tensor and frame, and four times that in all
LOGIT_LIMIT = 6.5               # beyond it the sigmoid is 0/256 or at its highest entry
ZERO_POINTS = range(0, 161, 16)     # tried where equalised, hence negative, channels join others
ALONE_ZERO_POINTS = range(0, 256, 16)


class Calibration:
    """What the quantiser knows of a network's tensors.

    ``places`` maps each name to scale and zero point, ``equalisation`` some names to the float32
    factors per channel by which their stored real value exceeds the float network's.

    Parameters
    ----------
    network : Network, in evaluation mode
    steps : what :func:`golden.plan.plan` found in it
    images : list of uint8 C x H x W, all of one shape
    advance : called after each image
    equalise : bool
        Whether convolutions are equalised too that are neither depthwise nor transposed. Off:
        on frames beyond the calibration's their channels leave such narrow ranges too often.
    clipping : one of `golden.names.CLIPPINGS`
        Where scales end: where the squared error is least; at the extremes; or at the 99.9th
        percentile. Equalised tensors alone and logits have the same scale with each.
    """

    def __init__(self, network, steps, images, *, equalise=False, clipping="mse",
                 advance=lambda: None):
        if clipping not in CLIPPINGS:
            raise ValueError(f"Clipping must be one of {', '.join(CLIPPINGS)}, not {clipping!r}")
        self.equalise, self.clipping = equalise, clipping
        self.network = network
        self.steps = {step.name: step for step in steps}
        self.readers = {name: [] for name in self.steps}
        for step in steps:
            for name in step.inputs:
                self.readers[name].append(step)
        self.ranges, self.samples = {}, {}
        self._observe(images, advance)
        self.places, self.equalisation = {}, {}
        for group in self._groups():
            place = self._place(group)
            self.places |= {name: place for name in group}

    def is_exact(self, step):
        """Whether this is the sum of elec4848's gates, which needs no rounding."""
        if step.kind != "add" or step.relu:
            return False
        for name in step.inputs:
            operand = self.steps[name]
            if not (operand.kind == "conv" and operand.relu and not operand.relu_first
                    and self.readers[name] == [step]):
                return False
        kinds = [reader.conv and (reader.conv.kernel_size, reader.conv.groups)
                 for reader in self.readers[step.name]]
        return kinds == [((1, 1), 1)]

    def is_free(self, step):
        """Whether each channel may have a factor of its own, taken back by all that read it."""
        special = step.kind in ("gate", "transposed") or (
            step.kind == "conv" and step.conv.groups > 1)
        if not (special or (self.equalise and step.kind == "conv")):
            return False
        return self._taken_back(step.name, by_gates=not special)

    def _taken_back(self, name, by_gates):
        def takes_back(reader):
            if reader.kind in COPIES:
                return self._taken_back(reader.name, by_gates)
            if reader.kind == "gate":
                return by_gates and reader.inputs[0] != name
            return reader.kind in ("conv", "transposed")

        return bool(self.readers[name]) and all(map(takes_back, self.readers[name]))

    @torch.no_grad()
    def _observe(self, images, advance):
        """Keep values of every tensor: some at random, and the extremes of each channel."""
        if not images:
            raise InputError("There are no frames to calibrate with; quantisation needs at least "
                             "one")
        self.shape = tuple(images[0].shape)
        generator = torch.Generator().manual_seed(0)
        samples = min(SAMPLES, 4 * SAMPLES // len(images))
        for image_CHW in images:
            if image_CHW.dtype != torch.uint8 or image_CHW.ndim != 3 or len(image_CHW) != 3:
                raise InputError("A frame to calibrate with must be uint8 of shape (3, H, W), not "
                                 f"{str(image_CHW.dtype).removeprefix('torch.')} of shape "
                                 f"{tuple(image_CHW.shape)}; golden.images.read_image makes one")
            if tuple(image_CHW.shape) != self.shape:
                raise InputError(f"Frames to calibrate with differ in shape, {self.shape} and "
                                 f"{tuple(image_CHW.shape)}; golden.images.read_image makes them "
                                 "of one size")
            trace = self.network.trace(image_CHW[None].to(torch.float32) / 255)
            for name, x_1CHW in trace.items():
                x_CP = x_1CHW[0].flatten(1)
                low_C, high_C = (x_C.to(torch.float64) for x_C in x_CP.aminmax(dim=1))
                if name in self.ranges:
                    low_C = torch.minimum(low_C, self.ranges[name][0])
                    high_C = torch.maximum(high_C, self.ranges[name][1])
                self.ranges[name] = low_C, high_C
                count = max(1, samples // len(x_CP))
                if count < x_CP.shape[1]:
                    x_CP = x_CP[:, torch.randint(x_CP.shape[1], (count,), generator=generator)]
                self.samples.setdefault(name, []).append(x_CP.to(torch.float64))
            advance()
        self.samples = {name: torch.cat(x, 1) for name, x in self.samples.items()}

    def _groups(self):
        """Lists of tensors that share one scale and zero point, in the order of the trace."""
        group_of = {name: [name] for name in self.steps}
        for step in self.steps.values():
            if step.kind in COPIES or self.is_exact(step):
                for name in step.inputs:
                    a, b = group_of[name], group_of[step.name]
                    if a is not b:
                        a += b
                        group_of |= dict.fromkeys(b, a)
        order = list(self.steps)
        unique = {id(group): sorted(group, key=order.index) for group in group_of.values()}
        return list(unique.values())

    def _place(self, group):
        """Scale and zero point of a group."""
        steps = [self.steps[name] for name in group]
        fixed = {FIXED[step.kind] for step in steps if step.kind in FIXED}
        free = [step for step in steps if self.is_free(step)]
        plain = [step.name for step in steps if step.kind not in (*FIXED, *COPIES)
                 and step not in free and not self.is_exact(step)]
        if len(fixed) > 1:
            raise InputError(f"Tensors {', '.join(group)} of network {self.network.name!r} share "
                             "one scale, but a frame and a sigmoid among them have different ones")
        kinds = {reader.kind for reader in self.readers[group[0]]} if len(group) == 1 else ()
        if "sigmoid" in kinds:
            return self._logit(group[0])
        if "classes" in kinds:      # which of two is larger must not be lost at the end of a scale
            return self._extremes(group)
        x = torch.cat([self.samples[name].flatten() for name in plain]) if plain else None
        if fixed:
            place = fixed.pop(), 0
        elif plain:
            place = self._clipped(x, plain)
        else:
            place = None
        return self._equalised(free, x, place) if free else place

    def _clipped(self, x, names):
        """Scale and zero point for samples ``x`` of tensors ``names``."""
        if self.clipping == "mse":
            return (_scale(x), 0) if x.min() >= 0 else _signed_place(x)
        if self.clipping == "percentile":
            low, high = (float(_quantile(x, share)) for share in (1 - PERCENTILE, PERCENTILE))
        else:
            return self._extremes(names)
        return _between(low, high)

    def _extremes(self, names):
        return _between(min(float(self.ranges[name][0].min()) for name in names),
                        max(float(self.ranges[name][1].max()) for name in names))

    def _logit(self, name):
        low_C, high_C = self.ranges[name]
        low = min(-1.0, max(-LOGIT_LIMIT, float(low_C.min())))
        high = max(1.0, min(LOGIT_LIMIT, float(high_C.max())))
        scale = (high - low) / 255
        return scale, round(-low / scale)

    def _equalised(self, free, x, place):
        """Scale and zero point for equalised tensors and, if there are any, values ``x`` of others.

        ``place`` is what those others would have alone: raised to let negative channels in, unless
        it has a zero point already. Tried by squared error, relative to the power of either tensor.
        """
        if x is not None:
            x = x[::max(1, len(x) // SAMPLES)]
            scale, zero_point = place
            if zero_point == 0 and self.clipping == "mse":
                scale = _scale(x)
            trials = [(scale * 255 / (255 - z), z) for z in ZERO_POINTS] if zero_point == 0 else [
                place]
        elif place is not None:
            trials = [place]
        else:
            power = torch.stack([self.samples[step.name].square().mean() for step in free]).max()
            scale = max(float(power.sqrt()) / 32, 1e-9)
            negative = any(self.ranges[step.name][0].min() < 0 for step in free)
            trials = [(scale, z) for z in (ALONE_ZERO_POINTS if negative else (0,))]
        attempts = []
        for scale, zero_point in trials:
            error = sum(self._fit(step, scale, zero_point)[1] for step in free)
            if x is not None:
                error += _error(x, scale, zero_point) / x.square().mean().clamp(min=1e-12)
            attempts.append((float(error), scale, zero_point))
        _, scale, zero_point = min(attempts, key=lambda attempt: attempt[0])
        for step in free:
            self.equalisation[step.name] = self._fit(step, scale, zero_point)[0].to(torch.float32)
        return scale, zero_point

    def _fit(self, step, scale, zero_point):
        """Factor that makes each channel fill the range, and squared error relative to power.

        Nothing is clipped: samples are too few per channel to tell what may be.
        """
        x_CP, (low_C, high_C) = self.samples[step.name], self.ranges[step.name]
        low_C, high_C = low_C.clamp(max=0), high_C.clamp(min=0)
        below, above = zero_point * scale if zero_point else 0.0, (255 - zero_point) * scale
        fit_C = torch.minimum(
            torch.where(low_C < 0, below / low_C.abs().clamp(min=1e-12), math.inf),
            torch.where(high_C > 0, above / high_C.clamp(min=1e-12), math.inf))
        fit_C = torch.where(torch.isfinite(fit_C) & (fit_C > 0), fit_C, 1.0)
        error_C = _error(x_CP * fit_C[:, None], scale, zero_point, dim=1) / fit_C**2
        return fit_C, error_C.mean() / x_CP.square().mean().clamp(min=1e-12)


def _between(low, high):
    """Scale and zero point of all values between two."""
    low, high = min(0.0, low), max(0.0, high)
    scale = (high - low) / 255 or 1 / 255
    return scale, round(-low / scale)


def _quantile(x, share):
    """Of values in any order, without interpolation."""
    return x.kthvalue(1 + round(share * (len(x) - 1))).values


def _scale(x):
    """Scale of values that are never negative, with the least squared error."""
    if len(x) > 4 * SAMPLES:
        x = x[::len(x) // (4 * SAMPLES)]
    top = float(x.max())
    if top <= 0:
        return 1 / 255
    scales = [top * step / 32 / 255 for step in range(8, 33)]
    return min(scales, key=lambda s: float(_error(x, s, 0)))


def _signed_place(x):
    """Scale and zero point of values of both signs, with the least squared error."""
    x = x[::max(1, len(x) // SAMPLES)]
    low, high = min(0.0, float(x.min())), max(0.0, float(x.max()))
    places = []
    for i in range(4, 17):
        for j in range(4, 17):
            scale = (high * j - low * i) / 16 / 255
            places.append((scale, min(255, round(-low * i / 16 / scale))))
    return min(places, key=lambda place: float(_error(x, *place)))


def _error(x, scale, zero_point, *, dim=None):
    """Mean squared error of storing ``x`` as uint8."""
    q = torch.round(x / scale).clamp_(-zero_point, 255 - zero_point)
    squared = q.mul_(scale).sub_(x).square_()
    return squared.mean() if dim is None else squared.mean(dim)
