"""What a person may name, for those who refuse a name: nothing here needs PyTorch, which takes
seconds to import."""

from pathlib import Path

from golden.errors import InputError

__all__ = ["CLASS_COLOURS", "CLIPPING", "CLIPPINGS", "LOSSES", "MOST_SIZE", "MOST_WIDTH",
           "NETWORKS", "PARTS", "PHANTOM", "POOLINGS", "SCHEDULES", "TEACHER", "VARIANTS",
           "check_shape", "demand_network", "is_file", "named_images", "whole_side"]

# What MODEL may name, each with its poolings: frames are multiples of 2 to that.
POOLINGS = {"elec4848": 4, "elec4848-ds": 4, "elec4848-ds-published": 4, "elec4848-classes": 4,
            "unet-busi": 4, "attunet-nuclei": 3, "attunet-ct": 4}
# Another network again but for some layers: by name it does all that the five do, and where all
# networks are asked for, it is left out.
VARIANTS = ("elec4848-ds-published", "elec4848-classes")
NETWORKS = tuple(name for name in POOLINGS if name not in VARIANTS)
TEACHER = "teacher"         # trained like a network, and never quantised
PHANTOM = "phantom:"
# Beyond any network that is made; what is larger is a mistake, and would ask for all memory.
MOST_SIZE, MOST_WIDTH = 1 << 14, 1 << 10
CLIPPINGS = ("mse", "min-max", "percentile")    # where scales end: golden.calibration
CLIPPING = "min-max"        # of what is exported, and of training that sees INT8
LOSSES = ("bce", "dice", "bce+dice")
SCHEDULES = ("cosine", "plateau")
PARTS = ("train", "validation", "test")
# In which classes are drawn, the background first: these differ for the colour-blind, too (Okabe
# and Ito).
CLASS_COLOURS = {"black": (0, 0, 0), "blue": (86, 180, 233), "orange": (230, 159, 0),
                 "green": (0, 158, 115)}


def demand_network(name, *more):
    """Refuse a name that no network has, and none of ``more``."""
    if name not in (*POOLINGS, *more):
        raise InputError(f"No model {name!r}; known: {', '.join((*POOLINGS, *more))}")


def is_file(model):
    """Whether MODEL is a path: it ends in ``.onnx`` or has a folder."""
    return model.endswith(".onnx") or "/" in model


def check_shape(size, width, multiple):
    """Refuse frame sizes that are no ``multiple``, and widths that no network can have."""
    if size < multiple or size % multiple:
        raise InputError(f"Frame size must be a positive multiple of {multiple}, not {size!r}; "
                         f"try {max(multiple, round(size / multiple) * multiple)}")
    if size > MOST_SIZE:
        raise InputError(f"Frame size must be at most {MOST_SIZE}, not {size!r}")
    if width < 1:
        raise InputError(f"Network width must be positive, not {width!r}; "
                         "it is the number of filters of the first level")
    if width > MOST_WIDTH:
        raise InputError(f"Network width must be at most {MOST_WIDTH}, not {width!r}; "
                         "it is the number of filters of the first level")


def whole_side(model, size):
    """``size``, or the next larger side that a network of :data:`POOLINGS` can halve as often as it
    does."""
    multiple = 1 << POOLINGS[model]
    return -(-size // multiple) * multiple


def named_images(text):
    """The names in IMAGE, which stand between commas; a comma in the name of a file belongs to it.
    """
    parts, names = str(text).split(","), []
    while parts:
        count = next((n for n in range(len(parts), 1, -1)
                      if Path(",".join(parts[:n]).strip()).exists()), 1)
        names.append(",".join(parts[:count]).strip())
        parts = parts[count:]
    return [name for name in names if name]
