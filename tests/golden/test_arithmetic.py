import pytest
import torch

from golden import arithmetic


def requantise(acc, m, s, *, zero_point=0, low=0, high=255):
    acc_C11 = torch.tensor(acc, dtype=torch.int32)[:, None, None]
    m_C = torch.full((len(acc),), m, dtype=torch.int16)
    s_C = torch.full((len(acc),), s, dtype=torch.uint8)
    y_C11 = arithmetic.requantise(acc_C11, m_C, s_C, zero_point=zero_point, low=low, high=high)
    assert y_C11.dtype == torch.uint8
    return y_C11.flatten().tolist()


def test_halves_round_up():
    # m * 2**-s = 1/2, so odd accumulators land on halves: 0.5, 1.5, 2.5, 0.
    assert requantise([1, 3, 5, 0], 1 << 14, 15) == [1, 2, 3, 0]


def test_negative_halves_round_up():
    # -0.5 -> 0, -1.5 -> -1, -2.5 -> -2; rounding half away from zero would say 99, 98, 97.
    assert requantise([-1, -3, -5], 1 << 14, 15, zero_point=100) == [100, 99, 98]


def test_negative_multiplier_rounds_after_the_product():
    assert requantise([1, 3, 5, -1], -(1 << 14), 15, zero_point=100) == [100, 99, 98, 101]


def test_saturation_and_bounds():
    assert requantise([-5000, 5000], 1 << 14, 15, zero_point=7) == [0, 255]
    assert requantise([-5000, 0, 5000], 1 << 14, 15, zero_point=7, low=7, high=200) == [7, 7, 200]


def test_extreme_product_needs_48_bits():
    # 2**31 - 1 times 2**15 - 1, shifted by 47: 0.49998 -> 0; by 40: 63.998 -> 64.
    assert requantise([2**31 - 1], 2**15 - 1, 47) == [0]
    assert requantise([2**31 - 1], 2**15 - 1, 40) == [64]
    assert requantise([-2**31], 2**15 - 1, 40, zero_point=64) == [0]


def test_dead_channel_gives_the_zero_point():
    assert requantise([-2**31, 0, 2**31 - 1], 0, 1, zero_point=33) == [33, 33, 33]


def test_channels_have_their_own_multiplier():
    acc_C11 = torch.tensor([64, 64])[:, None, None]
    y_C11 = arithmetic.requantise(acc_C11, torch.tensor([1 << 14, 3 << 13]), torch.tensor([14, 15]),
                                  zero_point=0, low=0, high=255)
    assert y_C11.flatten().tolist() == [64, 48]


def naive_convolve(x_IHW, weight_OIKL, bias_O, zero_point, stride, padding):
    top, left, bottom, right = padding
    channels, rows, columns = x_IHW.shape
    outputs, _, kernel_rows, kernel_columns = weight_OIKL.shape
    out_rows = (rows + top + bottom - kernel_rows) // stride + 1
    out_columns = (columns + left + right - kernel_columns) // stride + 1
    x, w = x_IHW.tolist(), weight_OIKL.tolist()
    result = []
    for o in range(outputs):
        for h in range(out_rows):
            for v in range(out_columns):
                acc = int(bias_O[o])
                for k in range(kernel_rows):
                    for n in range(kernel_columns):
                        row, column = h * stride + k - top, v * stride + n - left
                        if 0 <= row < rows and 0 <= column < columns:
                            acc += sum(w[o][i][k][n] * (x[i][row][column] - zero_point)
                                       for i in range(channels))
                result.append(acc)
    return torch.tensor(result, dtype=torch.int32).reshape(outputs, out_rows, out_columns)


@pytest.mark.parametrize(("kernel", "stride", "padding"), [
    (3, 1, (1, 1, 1, 1)),
    (3, 2, (0, 0, 1, 1)),
    (3, 2, (1, 1, 0, 0)),
    (1, 1, (0, 0, 0, 0)),
    (2, 1, (1, 0, 0, 1)),
])
@pytest.mark.parametrize("zero_point", [0, 77, 255])
def test_convolve_against_a_naive_loop(kernel, stride, padding, zero_point):
    generator = torch.Generator().manual_seed(kernel + stride)
    x = torch.randint(0, 256, (5, 6, 8), generator=generator, dtype=torch.uint8)
    w = torch.randint(-127, 128, (3, 5, kernel, kernel), generator=generator, dtype=torch.int8)
    b = torch.randint(-2**20, 2**20, (3,), generator=generator, dtype=torch.int32)
    acc = arithmetic.convolve(x, w, b, zero_point=zero_point, stride=stride, padding=padding)
    assert acc.dtype == torch.int32
    assert torch.equal(acc, naive_convolve(x, w, b, zero_point, stride, padding))


def test_convolve_is_exact_beyond_float32():
    # All products at their largest: the sum, 9 * 768 * 127 * 255 + 1, is odd and above 2**24.
    x = torch.full((768, 3, 3), 255, dtype=torch.uint8)
    w = torch.full((1, 768, 3, 3), 127, dtype=torch.int8)
    bias = torch.tensor([1], dtype=torch.int32)
    acc = arithmetic.convolve(x, w, bias, zero_point=0, stride=1, padding=(0, 0, 0, 0))
    assert acc.item() == 9 * 768 * 127 * 255 + 1


@pytest.mark.parametrize("channels", [96, 768])
def test_convolve_against_float64_at_full_depth(channels):
    generator = torch.Generator().manual_seed(channels)
    x = torch.randint(0, 256, (channels, 32, 32), generator=generator, dtype=torch.uint8)
    w = torch.randint(-127, 128, (16, channels, 3, 3), generator=generator, dtype=torch.int8)
    acc = arithmetic.convolve(x, w, torch.zeros(16, dtype=torch.int32), zero_point=3, stride=1,
                              padding=(1, 1, 1, 1))
    exact = torch.nn.functional.conv2d((x.double() - 3)[None], w.double(), padding=1)[0]
    assert torch.equal(acc.double(), exact)


def test_convolve_refuses_a_kernel_too_large_to_be_exact():
    w = torch.full((1, 1, 23, 23), 127, dtype=torch.int8)
    with pytest.raises(ValueError, match=r"^One input channel alone exceeds 2\*\*24, kernel too "
                                         r"large for 8-bit operands$"):
        arithmetic.convolve(torch.full((1, 23, 23), 255, dtype=torch.uint8), w,
                            torch.zeros(1, dtype=torch.int32), zero_point=0, stride=1,
                            padding=(0, 0, 0, 0))


def test_stride_2_pads_after():
    # With padding after, the window of the first output starts on the first pixel.
    x = torch.arange(16, dtype=torch.uint8).reshape(1, 4, 4)
    w = torch.zeros(1, 1, 3, 3, dtype=torch.int8)
    w[0, 0, 0, 0] = 1
    acc = arithmetic.convolve(x, w, torch.zeros(1, dtype=torch.int32), zero_point=0, stride=2,
                              padding=(0, 0, 1, 1))
    assert acc.tolist() == [[[0, 2], [8, 10]]]


def test_add_keeps_nine_bits():
    a, b = torch.tensor([[[255, 0, 200]]]).byte(), torch.tensor([[[255, 0, 100]]]).byte()
    total = arithmetic.add(a, b)
    assert total.dtype == torch.int16
    assert total.tolist() == [[[510, 0, 300]]]


def test_max_pool_and_upsample():
    x = torch.tensor([[[1, 9, 4, 4], [200, 3, 4, 5]]]).byte()
    assert arithmetic.max_pool(x).tolist() == [[[200, 5]]]
    assert arithmetic.upsample(torch.tensor([[[1, 2]]]).byte()).tolist() == [[[1, 1, 2, 2]] * 2]


def test_lookup_reaches_the_upper_half():
    table = torch.arange(255, -1, -1).byte()
    assert arithmetic.lookup(torch.tensor([[[0, 127, 128, 255]]]).byte(), table).tolist() == [
        [[255, 128, 127, 0]]]


def test_gate():
    # Channel 0: 128 * skip - 1000, halved twice; channel 1 has a negative gain.
    alpha = torch.tensor([[[128]]]).byte()
    skip = torch.tensor([[[0, 10], [20, 255]], [[0, 1], [2, 3]]]).byte()
    y = arithmetic.gate(alpha, skip, torch.tensor([-1000, 0], dtype=torch.int32),
                        torch.tensor([1 << 14, -(1 << 14)], dtype=torch.int16),
                        torch.tensor([20, 20], dtype=torch.uint8),
                        zero_point=64, low=0, high=255)
    # (0*128-1000)/64 = -15.625 -> -16; 280/64 = 4.375; 1560/64 = 24.375; 31640/64 = 494.4.
    # -128/64 = -2, -4, -6.
    assert y.tolist() == [[[48, 68], [88, 255]], [[64, 62], [60, 58]]]


def test_gate_takes_alpha_of_the_2x2_block():
    alpha = torch.tensor([[[1, 2]]]).byte()
    skip = torch.full((1, 2, 4), 1).byte()
    y = arithmetic.gate(alpha, skip, torch.zeros(1, dtype=torch.int32),
                        torch.tensor([1 << 14]), torch.tensor([14]), zero_point=0, low=0, high=255)
    assert y.tolist() == [[[1, 1, 2, 2], [1, 1, 2, 2]]]
