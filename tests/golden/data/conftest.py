import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def save():
    """Write an array as a picture, with the folders above it."""
    def save(path, values):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(values, np.uint8)).save(path)
        return path

    return save


@pytest.fixture
def busi(tmp_path, save):
    """Six images of three classes as published; benign 1 has three masks, 2 and 3 are related."""
    home = tmp_path / "a copy (of BUSI)"
    texture = np.random.default_rng(1)
    for kind, count in {"benign": 3, "malignant": 2, "normal": 1}.items():
        for i in range(1, count + 1):
            image = home / "Dataset_BUSI_with_GT" / kind / f"{kind} ({i}).png"
            save(image, texture.integers(0, 256, (20, 30)))
            mask = np.zeros((20, 30))
            if kind != "normal":
                mask[:, :5] = 255
            save(image.with_name(f"{image.stem}_mask.png"), mask)
    for k in (1, 2):
        mask = np.zeros((20, 30))
        mask[:, 10 * k:10 * k + 5] = 255
        save(home / "Dataset_BUSI_with_GT/benign" / f"benign (1)_mask_{k}.png", mask)
    (home / "index.csv").write_text(
        "file,class,related_group\nbenign/benign (1).png,benign,\n"
        "benign/benign (2).png,benign,7\nbenign/benign (3).png,benign,7\n"
        "malignant/malignant (1).png,malignant,\nmalignant/malignant (2).png,malignant,\n"
        "normal/normal (1).png,normal,\n")
    return home
