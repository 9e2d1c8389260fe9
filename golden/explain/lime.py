"""LIME on superpixels (M. Ribeiro et al., KDD 2016, arXiv:1602.04938), by Captum.

The score of frames in which superpixels are hidden at random is fitted by a linear model of which
ones are shown. Its weights are the explanation, as far as it fits.
"""

from dataclasses import dataclass

import torch
from captum._utils.models.model import Model
from captum.attr import Lime as CaptumLime
from captum.attr._core.lime import get_exp_kernel_similarity_function

from golden.errors import InputError
from golden.explain.probe import BATCH
from golden.explain.superpixels import superpixels

__all__ = ["Lime", "LinearFit", "Surrogate", "surrogate"]

LEAST_SIDE = 4          # of a superpixel, on average
KERNEL_WIDTH = 0.25     # of the weight of a sample by its distance, as the authors' program has it
PENALTY = 1.0           # likewise, of the squares of weights


@dataclass(frozen=True)
class Lime:
    """About how many superpixels a frame is cut into, how many frames with some of them hidden are
    tried, and the seed of which."""
    superpixels: int = 60
    samples: int = 300
    seed: int = 0

    def check(self, size):
        """Refuse numbers that a frame of ``size``, or a fit, cannot have."""
        most = max(1, (size // LEAST_SIDE) ** 2)
        if not 1 <= self.superpixels <= most:
            raise InputError(f"Number of superpixels must be 1..{most} for frames of {size} "
                             f"pixels, not {self.superpixels!r}")
        if self.samples < 2 * self.superpixels:
            raise InputError(f"Number of samples must be at least {2 * self.superpixels}, two for "
                             f"each superpixel, not {self.samples!r}")


@dataclass(frozen=True)
class Surrogate:
    """A linear model of the score: the number of each pixel's superpixel, H x W; what showing each
    of the N superpixels adds to the score; from how many samples that is known; and what it
    explains of the score, the R² of :class:`LinearFit`."""
    label_HW: torch.Tensor
    weight_N: torch.Tensor
    samples: int
    explained: float


def surrogate(score, image_CHW, frame_1CHW, mean_1CHW, lime):
    """The :class:`Surrogate` of ``score`` near a frame.

    ``image_CHW`` is the frame in uint8, of three channels or one, ``frame_1CHW`` the same as
    ``score`` takes it, and ``mean_1CHW`` what a hidden superpixel shows. Half of all superpixels
    are shown, on average; a sample counts the less, the larger its cosine distance from the frame.
    """
    label_HW = superpixels(image_CHW.expand(3, -1, -1), lime.superpixels)
    linear = LinearFit()
    near = get_exp_kernel_similarity_function("cosine", KERNEL_WIDTH)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(lime.seed)
        weight_N = CaptumLime(score, linear, near).attribute(
            frame_1CHW, baselines=mean_1CHW, feature_mask=label_HW[None, None],
            n_samples=lime.samples, perturbations_per_eval=BATCH, return_input_shape=False)
    return Surrogate(label_HW, weight_N, lime.samples, linear.explained)


class LinearFit(Model):
    """Weighted ridge regression in closed form, where Captum's own ask for scikit-learn.

    ``explained`` is its R²: the share of the variance that is explained if each sample is
    predicted by the fit to all others. So it does not grow with the number of weights, and is
    below 0 where the mean would predict better.
    """

    def fit(self, train_data, **_):
        x_SN, y_S, near_S = (torch.cat(parts).double() for parts in zip(*train_data, strict=True))
        x_SM = torch.cat([x_SN, torch.ones(len(x_SN), 1, dtype=torch.float64)], 1)
        penalty_MM = torch.diag(torch.tensor([PENALTY] * x_SN.shape[1] + [0.0],
                                             dtype=torch.float64))
        inverse_MM = torch.linalg.inv(x_SM.T * near_S @ x_SM + penalty_MM)
        self.weight_M = inverse_MM @ (x_SM.T @ (near_S * y_S))
        # Leaving a sample out makes its residual larger by its own share in its prediction.
        share_S = near_S * (x_SM @ inverse_MM * x_SM).sum(1)
        missed_S = (y_S - x_SM @ self.weight_M) / (1 - share_S)
        away_S = y_S - (near_S * y_S).sum() / near_S.sum()
        around = float((near_S * away_S.square()).sum())
        self.explained = 1 - float((near_S * missed_S.square()).sum()) / around if around else 0.0

    def representation(self):
        return self.weight_M[:-1].float()

    def __call__(self, x):
        return x.double() @ self.weight_M[:-1] + self.weight_M[-1]
