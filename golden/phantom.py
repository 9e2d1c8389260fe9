"""Synthetic breast ultrasound with a known lesion: speckle physics in miniature.

Scatterers of random strength, weighted by the echogenicity of the tissue they lie in, are
convolved with a point-spread function that widens with depth; the envelope is attenuated, log
compressed and written as grey levels. Layers are skin, fat, gland and muscle. Lesions are
hypoechoic: cysts brighten what lies below them, solid ones shade their edges or all below.
"""

import numpy as np
from PIL import Image

from golden.errors import InputError

__all__ = ["lesion_kind", "phantom"]

GRID = 256              # least size at which the physics is computed
DYNAMIC_RANGE_DB = 55


def phantom(seed, size):
    """Image and true mask (0 or 255) of one synthetic frame, both uint8 H x W.

    The same seed gives the same scene at every size. About one seed in twelve has no lesion.
    """
    if not isinstance(seed, int) or seed < 0:
        raise InputError(f"Phantom seed must be a whole number of at least 0, not {seed!r}")
    if size < 1:
        raise InputError(f"Phantom size must be positive, not {size!r}; the paper's is 256")
    rng = np.random.default_rng(seed)
    grid = max(GRID, size)
    tissue_HW, attenuation_HW, lesions = _scene(rng, grid)
    mask_HW = np.zeros((grid, grid), bool)
    for _, inside_HW in lesions:
        mask_HW |= inside_HW

    looks = rng.integers(2, 7)
    power_HW = sum(np.abs(_speckle(rng, np.power(10, tissue_HW / 20), grid)) ** 2
                   for _ in range(looks)) / looks                           # compounding
    echo_db_HW = 10 * np.log10(power_HW + 1e-6) - np.cumsum(attenuation_HW, 0)
    top_db = np.quantile(echo_db_HW, 0.995) + rng.uniform(0, 6)
    image_HW = np.clip(1 + (echo_db_HW - top_db) / DYNAMIC_RANGE_DB, 0, 1) ** rng.uniform(1.3, 2.4)
    image_HW = np.round(255 * image_HW).astype(np.uint8)
    return _resize(image_HW, size), np.where(_resize(np.uint8(255 * mask_HW), size) > 127,
                                             np.uint8(255), np.uint8(0))


def lesion_kind(seed):
    """``"malignant"`` if a lesion of the phantom is, else ``"benign"``, as cysts are; None without
    a lesion."""
    *_, lesions = _scene(np.random.default_rng(seed), GRID)
    kinds = {kind for kind, _ in lesions}
    return "malignant" if "malignant" in kinds else "benign" if kinds else None


def _scene(rng, grid):
    """Echogenicity in dB, attenuation in dB per row, and the lesions: of each its kind, and where
    it is."""
    z_HW, x_HW = np.mgrid[0:grid, 0:grid] / grid
    tissue_HW = _layers(rng, z_HW, x_HW)
    attenuation_HW = np.full_like(z_HW, rng.uniform(0, 22) / grid)
    lesions = [_lesion(rng, z_HW, x_HW, tissue_HW, attenuation_HW)
               for _ in range(rng.choice(3, p=[1 / 12, 9.5 / 12, 1.5 / 12]))]
    return tissue_HW, attenuation_HW, lesions


def _resize(x_HW, size):
    if x_HW.shape[0] == size:
        return x_HW
    return np.asarray(Image.fromarray(x_HW).resize((size, size), Image.Resampling.BOX))


def _smooth_noise(rng, length, knots):
    """Cosine-interpolated random curve in -1..1."""
    values = rng.uniform(-1, 1, knots + 1)
    t = np.linspace(0, knots, length, endpoint=False)
    k = t.astype(int)
    ease = (1 - np.cos(np.pi * (t - k))) / 2
    return values[k] * (1 - ease) + values[k + 1] * ease


def _smooth_field(rng, grid, across, down):
    """Bilinear random field in about -1..1, finer with more knots."""
    knots = rng.uniform(-1, 1, (down + 1, across + 1)).astype(np.float32)
    image = Image.fromarray(knots).resize((grid, grid), Image.Resampling.BICUBIC)
    return np.asarray(image, np.float64)


def _layers(rng, z_HW, x_HW):
    """Echogenicity in dB of skin, fat with septa, gland and muscle."""
    grid = len(z_HW)
    skin = rng.uniform(0.015, 0.04) + 0.004 * _smooth_noise(rng, grid, 4)
    fat = skin + rng.uniform(0.08, 0.28) + 0.05 * _smooth_noise(rng, grid, rng.integers(3, 7))
    muscle = rng.uniform(0.62, 1.05) + 0.05 * _smooth_noise(rng, grid, rng.integers(2, 5))
    rib = muscle + rng.uniform(0.06, 0.2)

    lobules_HW = _smooth_field(rng, grid, rng.integers(4, 9), rng.integers(8, 18))
    texture_HW = (_smooth_field(rng, grid, rng.integers(3, 9), rng.integers(30, 70))
                  + 0.7 * _smooth_field(rng, grid, rng.integers(5, 12), rng.integers(8, 16)))
    fat_db = rng.uniform(-16, -9)
    gland_db = fat_db + rng.uniform(4, 13)
    tissue_HW = np.where(z_HW < fat, fat_db + 3 * lobules_HW + 3 * texture_HW,
                         gland_db + rng.uniform(4, 9) * texture_HW)
    septa_HW = np.abs(lobules_HW) < 0.06
    tissue_HW = np.where(septa_HW & (z_HW < fat), tissue_HW + 7, tissue_HW)
    # Dark ducts and fat lobules inside the gland are what a network must not take for lesions.
    pockets_HW = _smooth_field(rng, grid, rng.integers(5, 10), rng.integers(6, 12)) > 0.72
    tissue_HW = np.where(pockets_HW & (z_HW >= fat), tissue_HW - rng.uniform(3, 7), tissue_HW)
    stripes_HW = np.sin(2 * np.pi * (z_HW + 0.05 * x_HW) * rng.uniform(20, 45))
    tissue_HW = np.where(z_HW > muscle, fat_db + 2 + 3 * stripes_HW, tissue_HW)
    tissue_HW = np.where(np.abs(z_HW - muscle) < 0.008, gland_db + 6, tissue_HW)
    tissue_HW = np.where(z_HW > rib, fat_db - 10, tissue_HW)
    return np.where(z_HW < skin, gland_db + 8, tissue_HW)


def _lesion(rng, z_HW, x_HW, tissue_HW, attenuation_HW):
    """Draw one lesion into the echogenicity and the attenuation; its kind, and where it is."""
    grid = len(z_HW)
    kind = rng.choice(["cyst", "benign", "malignant"], p=[0.25, 0.4, 0.35])
    radius = np.exp(rng.uniform(np.log(0.05), np.log(0.27)))
    aspect = rng.uniform(0.45, 0.9) if kind != "malignant" else rng.uniform(0.65, 1.35)
    z0 = rng.uniform(0.22, 0.68)
    x0 = rng.uniform(0.15, 0.85)
    tilt = rng.uniform(-0.4, 0.4)
    u_HW = (x_HW - x0) * np.cos(tilt) + (z_HW - z0) * np.sin(tilt)
    v_HW = ((z_HW - z0) * np.cos(tilt) - (x_HW - x0) * np.sin(tilt)) / aspect
    angle_HW = np.arctan2(v_HW, u_HW)

    rough = {"cyst": 0.04, "benign": 0.10, "malignant": 0.26}[kind]
    edge_HW = np.ones_like(z_HW)
    for harmonic in range(2, 5 if kind != "malignant" else 14):
        strength = rough * rng.normal() / np.sqrt(harmonic)
        edge_HW += strength * np.cos(harmonic * angle_HW + rng.uniform(0, 2 * np.pi))
    distance_HW = np.hypot(u_HW, v_HW) / (radius * np.clip(edge_HW, 0.4, 1.8))
    inside_HW = distance_HW < 1

    blur = {"cyst": 0.06, "benign": 0.12, "malignant": 0.25}[kind]
    depth_HW = 0.5 - 0.5 * np.tanh((distance_HW - 1) / (blur / 2))
    surround = np.median(tissue_HW[inside_HW]) if inside_HW.any() else -8.0
    drop = {"cyst": rng.uniform(18, 32), "benign": rng.uniform(7, 16),
            "malignant": rng.uniform(8, 20)}[kind]
    texture_HW = 2.5 * _smooth_field(rng, grid, 20, 20)
    target_HW = surround - drop + texture_HW
    tissue_HW += depth_HW * (np.minimum(target_HW, tissue_HW - 5) - tissue_HW)
    if kind != "cyst":
        rim_HW = np.exp(-((distance_HW - 1.08) / 0.06) ** 2)
        tissue_HW += rng.uniform(0, 4) * rim_HW

    # What a column loses, or gains, inside the lesion shows in everything below it.
    width = 2 * radius * aspect * grid
    change_db = {"cyst": -rng.uniform(4, 10), "benign": rng.uniform(-4, 3),
                 "malignant": rng.uniform(0, 14)}[kind]
    attenuation_HW += depth_HW * change_db / width
    if kind == "benign":
        side_HW = np.exp(-((np.abs(u_HW) / radius - 1) / 0.08) ** 2) * inside_HW
        attenuation_HW += side_HW * rng.uniform(0, 3) / (0.3 * width)
    return kind, inside_HW


def _speckle(rng, strength_HW, grid):
    """Complex echo of random scatterers under a point-spread function that widens with depth."""
    scatterers_HW = strength_HW * rng.normal(size=strength_HW.shape)
    axial = rng.uniform(0.8, 1.5)
    pulse = _bell(axial * grid / GRID) * np.exp(
        2j * np.pi * 0.22 * GRID / grid * np.arange(-_reach(axial * grid / GRID),
                                                    _reach(axial * grid / GRID) + 1))
    echo_HW = _along(scatterers_HW, pulse, 0)
    near, far = rng.uniform(0.9, 1.5), rng.uniform(1.8, 3.2)
    focus = np.linspace(0, 1, grid)[:, None]
    sharp_HW = _along(echo_HW, _bell(near * grid / GRID), 1)
    wide_HW = _along(echo_HW, _bell(far * grid / GRID), 1)
    return np.sqrt(1 - focus) * sharp_HW + np.sqrt(focus) * wide_HW


def _reach(sigma):
    return int(np.ceil(3 * sigma))


def _bell(sigma):
    """Gaussian of unit power."""
    t = np.arange(-_reach(sigma), _reach(sigma) + 1)
    bell = np.exp(-0.5 * (t / sigma) ** 2)
    return bell / np.sqrt((bell ** 2).sum())


def _along(x_HW, kernel, axis):
    """Convolve along one axis, reflecting at the ends."""
    reach = len(kernel) // 2
    padding = [(0, 0), (0, 0)]
    padding[axis] = (reach, reach)
    padded = np.pad(x_HW, padding, mode="reflect")
    length = x_HW.shape[axis]
    return sum(weight * np.take(padded, range(k, k + length), axis)
               for k, weight in enumerate(kernel[::-1]))
