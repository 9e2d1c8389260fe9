"""Images and masks in memory, all of one size, and the pairs that turned out to be broken."""

from dataclasses import dataclass, replace

import torch

from golden.data.clahe import clahe
from golden.data.sample import Dataset, Sample
from golden.data.screen import near_duplicates
from golden.errors import InputError, shown
from golden.images import image_size, phantom_seed, read_image, read_truth
from golden.names import PHANTOM
from golden.phantom import lesion_kind

__all__ = ["Frames", "load", "read_pair"]

NAMED = 3       # broken pairs that an error names


@dataclass(frozen=True)
class Frames:
    """Pairs in memory, all uint8.

    ``image`` is N x C x size x size, with one channel where all images are grey; ``truth`` is
    N x size x size, 0 or 255. ``broken`` names what was skipped, and why. ``notes`` is for people.
    """
    samples: tuple[Sample, ...]
    image: torch.Tensor
    truth: torch.Tensor
    broken: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self):
        return len(self.samples)

    @property
    def kinds(self):
        """Classes, sorted."""
        return sorted({sample.kind for sample in self.samples})

    def pick(self, samples):
        """Those of the samples named, in that order."""
        place = {sample.name: i for i, sample in enumerate(self.samples)}
        index = torch.tensor([place[sample.name] for sample in samples], dtype=torch.long)
        return replace(self, samples=tuple(samples), image=self.image[index],
                       truth=self.truth[index])

    def numbers(self, classes):
        """Which of ``classes``, names with the background first, the lesion of each frame is of: N
        numbers, 0 where there is none. A frame has one class, that of its sample; a phantom that
        of its lesions.

        Raises an :class:`InputError` where a lesion is of no such class.
        """
        numbers = []
        for sample, truth_HW in zip(self.samples, self.truth, strict=True):
            kind = classes[0]
            if truth_HW.any():
                kind = lesion_kind(phantom_seed(sample.image)) if (
                    str(sample.image).startswith(PHANTOM)) else sample.kind
            if kind not in classes:
                raise InputError(f"{shown(sample.name)} has a lesion of class {kind!r}, and the "
                                 f"network knows {', '.join(classes[1:])}; take other data, or a "
                                 f"network that finds lesions of any class, such as elec4848")
            numbers.append(classes.index(kind))
        return torch.tensor(numbers, dtype=torch.long)

    def frame(self, i):
        """Image ``i`` as the networks take it: uint8, 3 x size x size."""
        return self.image[i].expand(3, -1, -1).contiguous()


def load(dataset: Dataset, size, *, skip=False, equalise=False, advance=lambda: None):
    """Decode a whole data set, stretched to the square.

    A pair with a missing mask, a mask of another size than its image, or a file that cannot be
    decoded is broken: an :class:`InputError` names and counts them, or ``skip`` leaves them out.
    ``equalise`` applies CLAHE. Groups that the data set does not know come from a screen for near
    duplicates. ``advance`` is called after each pair.
    """
    samples, images, truths, broken = [], [], [], []
    for sample in dataset.samples:
        try:
            image_3HW, truth_HW = read_pair(sample, size)
        except InputError as error:
            broken.append(f"{shown(sample.name)}: {error}")
        else:
            samples.append(sample)
            images.append(clahe(image_3HW) if equalise else image_3HW)
            truths.append(truth_HW)
        advance()
    if broken and not skip:
        more = f" and {len(broken) - NAMED} more" if len(broken) > NAMED else ""
        raise InputError(f"{len(broken)} of {len(dataset.samples)} pairs in {dataset.source!r} "
                         f"are broken: {'; '.join(broken[:NAMED])}{more}. Repair them, or leave "
                         f"them out with SKIP=1")
    if not samples:
        raise InputError(f"All {len(broken)} pairs in {dataset.source!r} are broken; the first: "
                         f"{broken[0]}")
    image_NCHW = torch.stack(images)
    if (image_NCHW[:, :1] == image_NCHW).all():
        image_NCHW = image_NCHW[:, :1].clone()
    notes = [*dataset.notes]
    if not all(sample.group for sample in samples):
        groups = near_duplicates(image_NCHW)
        samples = [replace(sample, group=sample.group or samples[first].name)
                   for sample, first in zip(samples, groups, strict=True)]
        twins = len(samples) - len(set(groups))
        notes.append(f"related groups come from a screen for near duplicates, which found {twins}")
    return Frames(tuple(samples), image_NCHW, torch.stack(truths), tuple(broken), tuple(notes))


def read_pair(sample, size):
    """Image (3 x size x size) and the union of its masks (size x size, 0 or 255), uint8."""
    image_3HW = read_image(sample.image, size)
    if not sample.masks:
        raise InputError("no mask belongs to it")
    truth_HW = torch.zeros(size, size, dtype=torch.uint8)
    expected = image_size(sample.image)
    for mask in sample.masks:
        found = image_size(mask)
        if found != expected:
            raise InputError(f"mask {str(mask)!r} has {found[1]} x {found[0]} pixels, its image "
                             f"{expected[1]} x {expected[0]}")
        truth_HW |= read_truth(mask, size)
    return image_3HW, truth_HW
