import pytest
import torch
import torch.nn.functional as F

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


def random_operands(x_shape, weight_shape, outputs):
    generator = torch.Generator().manual_seed(sum(x_shape) + sum(weight_shape))
    return (torch.randint(0, 256, x_shape, generator=generator, dtype=torch.uint8),
            torch.randint(-127, 128, weight_shape, generator=generator, dtype=torch.int8),
            torch.randint(-2**20, 2**20, (outputs,), generator=generator, dtype=torch.int32))


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


WINDOWS = [
    (1, 1, (0, 0, 0, 0)),
    (2, 1, (1, 0, 0, 1)),
    (3, 1, (1, 1, 1, 1)),
    (3, 2, (0, 0, 1, 1)),
    (3, 2, (1, 1, 0, 0)),
    (4, 2, (3, 0, 2, 1)),
    (5, 1, (2, 2, 2, 2)),
    (7, 2, (3, 6, 0, 5)),
]


@pytest.mark.parametrize(("kernel", "stride", "padding"), WINDOWS)
@pytest.mark.parametrize("zero_point", [0, 77, 255])
def test_convolve_against_a_naive_loop(kernel, stride, padding, zero_point):
    x, w, b = random_operands((5, 7, 8), (3, 5, kernel, kernel), 3)
    acc = arithmetic.convolve(x, w, b, zero_point=zero_point, stride=stride, padding=padding)
    assert acc.dtype == torch.int32
    assert torch.equal(acc, naive_convolve(x, w, b, zero_point, stride, padding))


@pytest.mark.parametrize(("kernel", "stride", "padding"), WINDOWS)
@pytest.mark.parametrize("zero_point", [0, 77, 255])
def test_depthwise_is_each_channel_alone(kernel, stride, padding, zero_point):
    x, w, b = random_operands((4, 7, 8), (4, 1, kernel, kernel), 4)
    acc = arithmetic.convolve(x, w, b, zero_point=zero_point, stride=stride, padding=padding,
                              groups=4)
    assert acc.dtype == torch.int32
    for c in range(4):
        alone = naive_convolve(x[c:c + 1], w[c:c + 1], b[c:c + 1], zero_point, stride, padding)
        assert torch.equal(acc[c:c + 1], alone)


def test_kernels_need_not_be_square():
    x, w, b = random_operands((2, 5, 6), (3, 2, 1, 7), 3)
    acc = arithmetic.convolve(x, w, b, zero_point=9, stride=1, padding=(0, 3, 0, 3))
    assert acc.shape == (3, 5, 6)
    assert torch.equal(acc, naive_convolve(x, w, b, 9, 1, (0, 3, 0, 3)))


def test_average_pooling_is_a_depthwise_convolution_of_ones():
    x = torch.tensor([[[1, 2, 3, 250], [3, 5, 255, 254]], [[4] * 4, [8] * 4]]).byte()
    acc = arithmetic.convolve(x, torch.ones(2, 1, 2, 2, dtype=torch.int8),
                              torch.zeros(2, dtype=torch.int32), zero_point=0, stride=2,
                              padding=(0, 0, 0, 0), groups=2)
    y = arithmetic.requantise(acc, torch.tensor([1 << 14] * 2), torch.tensor([16] * 2),
                              zero_point=0, low=0, high=255)
    # 11 / 4 = 2.75, 762 / 4 = 190.5, whose half rounds up; and 24 / 4.
    assert y.tolist() == [[[3, 191]], [[6, 6]]]


def naive_transposed(x_IHW, weight_IOKL, bias_O, zero_point, padding):
    """The gather form: which input pixels reach an output, instead of where each one goes."""
    top, left, bottom, right = padding
    inputs, rows, columns = x_IHW.shape
    _, outputs, kernel_rows, kernel_columns = weight_IOKL.shape
    out_rows = 2 * (rows - 1) + kernel_rows - top - bottom
    out_columns = 2 * (columns - 1) + kernel_columns - left - right
    x, w = x_IHW.tolist(), weight_IOKL.tolist()
    result = []
    for o in range(outputs):
        for h in range(top, top + out_rows):
            for v in range(left, left + out_columns):
                acc = int(bias_O[o])
                for row in range(rows):
                    for column in range(columns):
                        k, n = h - 2 * row, v - 2 * column
                        if 0 <= k < kernel_rows and 0 <= n < kernel_columns:
                            acc += sum(w[i][o][k][n] * (x[i][row][column] - zero_point)
                                       for i in range(inputs))
                result.append(acc)
    return torch.tensor(result, dtype=torch.int32).reshape(outputs, out_rows, out_columns)


@pytest.mark.parametrize(("kernel", "padding"), [
    ((2, 2), (0, 0, 0, 0)),
    ((3, 3), (1, 1, 0, 0)),     # PyTorch: padding 1, output_padding 1
    ((3, 3), (0, 0, 1, 1)),     # Keras 'same'
    ((3, 3), (2, 1, 1, 0)),
    ((2, 3), (1, 0, 0, 2)),
])
@pytest.mark.parametrize("zero_point", [0, 128, 255])
def test_transposed_against_a_naive_loop(kernel, padding, zero_point):
    x, w, b = random_operands((4, 3, 5), (4, 3, *kernel), 3)
    acc = arithmetic.convolve_transposed(x, w, b, zero_point=zero_point, padding=padding)
    assert acc.dtype == torch.int32
    assert torch.equal(acc, naive_transposed(x, w, b, zero_point, padding))


def test_transposed_crops_as_pytorch_does():
    x, w, b = random_operands((4, 3, 5), (4, 2, 3, 3), 2)
    acc = arithmetic.convolve_transposed(x, w, b, zero_point=0, padding=(1, 1, 0, 0))
    expected = F.conv_transpose2d(x[None].double(), w.double(), b.double(), stride=2, padding=1,
                                  output_padding=1)[0]
    assert torch.equal(acc.double(), expected)


def test_transposed_by_hand():
    # Two pixels, 3x3 kernel of 1..9: the third column of the first meets the first of the second.
    x, w = torch.tensor([[[11, 12]]]).byte(), torch.arange(1, 10).reshape(1, 1, 3, 3).char()
    acc = arithmetic.convolve_transposed(x, w, torch.tensor([100]), zero_point=10,
                                         padding=(0, 0, 2, 0))
    assert acc.tolist() == [[[101, 102, 103 + 2, 104, 106]]]


def test_transposed_is_exact_beyond_float32():
    x = torch.full((1024, 2, 2), 255, dtype=torch.uint8)
    w = torch.full((1024, 1, 3, 3), 127, dtype=torch.int8)
    acc = arithmetic.convolve_transposed(x, w, torch.ones(1, dtype=torch.int32), zero_point=0,
                                         padding=(0, 0, 0, 0))
    assert acc[0, 2, 2] == 4 * 1024 * 127 * 255 + 1     # the corner where all four pixels meet


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


def test_depthwise_refuses_a_kernel_too_large_to_be_exact():
    w = torch.full((2, 1, 23, 23), 127, dtype=torch.int8)
    with pytest.raises(ValueError, match=r"^One input channel alone exceeds 2\*\*24, kernel too "
                                         r"large for 8-bit operands$"):
        arithmetic.convolve(torch.full((2, 23, 23), 255, dtype=torch.uint8), w,
                            torch.zeros(2, dtype=torch.int32), zero_point=0, stride=1,
                            padding=(0, 0, 0, 0), groups=2)


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


def test_weighted_sum():
    # 381 * (255 - 0) + 1 * (0 - 255); 381 * (3 - 0) + 1 * (255 - 255); 381 * 0 + (100 - 255)
    a, b = torch.tensor([[[255, 3, 0]]]).byte(), torch.tensor([[[0, 255, 100]]]).byte()
    total = arithmetic.weighted_sum(a, b, weights=(381, 1), zero_points=(0, 255))
    assert total.dtype == torch.int32
    assert total.tolist() == [[[96900, 1143, -155]]]


def naive_linear(rows_HW):
    """Exact half-pixel interpolation from its definition, in units of 1/16, then rounded."""
    height, width = len(rows_HW), len(rows_HW[0])

    def taps(position, length):
        """Quarter weights of the clamped neighbours of an output's centre."""
        quarters = 2 * position - 1             # position / 2 - 1/4, in quarters
        low, part = quarters // 4, quarters % 4
        return [(min(max(low, 0), length - 1), 4 - part), (min(low + 1, length - 1), part)]

    return [[(sum(a * b * rows_HW[row][column] for row, a in taps(h, height)
                  for column, b in taps(w, width)) + 8) // 16
             for w in range(2 * width)] for h in range(2 * height)]


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (3, 1), (3, 5), (4, 4)])
def test_linear_upsampling_against_a_naive_loop(shape):
    x, _, _ = random_operands((2, *shape), (1,), 1)
    y = arithmetic.upsample(x, "linear")
    assert y.dtype == torch.uint8
    assert y.tolist() == [naive_linear(channel) for channel in x.tolist()]


def test_linear_upsampling_by_hand():
    x = torch.tensor([[[0, 16], [32, 255]]]).byte()
    # Row 1 lies between 8 = (3 * 0 + 32) / 4 and 75.75 = (3 * 16 + 255) / 4: 24.9, then 58.8.
    assert arithmetic.upsample(x, "linear")[0, :2].tolist() == [[0, 4, 12, 16], [8, 25, 59, 76]]


def test_linear_upsampling_is_pytorchs_rounded():
    x, _, _ = random_operands((3, 6, 7), (1,), 1)
    real = F.interpolate(x[None].double(), scale_factor=2, mode="bilinear")[0]
    assert torch.equal(arithmetic.upsample(x, "linear").double(), torch.floor(real + 0.5))


def test_lines_by_hand():
    # Two rows for three, and five: of the latter every second lies half way between two.
    found = [[x.tolist() if isinstance(x, torch.Tensor) else x for x in arithmetic.lines(*asked)]
             for asked in ((3, 5, "align_corners"), (2, 4, "half_pixel"), (2, 3, "asymmetric"),
                           (1, 2, "align_corners"), (4, 1, "align_corners"))]
    assert found == [[[0, 0, 1, 1, 2], [0, 1, 0, 1, 0], 2],     # 0, 1/2, 1, 3/2, 2
                     [[0, 0, 0, 1], [0, 1, 3, 0], 4],           # -1/4, 1/4, 3/4, 5/4
                     [[0, 0, 1], [0, 2, 0], 3],                 # 0, 2/3, 4/3
                     [[0, 0], [0, 0], 1],
                     [[0], [0], 1]]


@pytest.mark.parametrize("place", ["half_pixel", "align_corners"])
@pytest.mark.parametrize(("length", "made"), [(1, 5), (2, 2), (4, 8), (5, 20), (7, 13), (9, 4)])
def test_interpolation_is_pytorchs(place, length, made):
    x, _, _ = random_operands((3, length, 6), (1,), 1)
    parts   = arithmetic.lines(length, made, place)[2]
    real    = F.interpolate(x[None].double() - 7, (made, 6), mode="bilinear",
                            align_corners=place == "align_corners")[0]
    for axis, turned, wanted in (("rows", x, real),
                                 ("columns", x.transpose(1, 2), real.transpose(1, 2))):
        acc = arithmetic.interpolate(turned, axis, made, place, zero_point=7)
        assert acc.dtype == torch.int32
        assert torch.allclose(acc.double() / parts, wanted, rtol=0, atol=1e-9)


def test_asymmetric_interpolation_by_hand():
    x = torch.tensor([[[9, 12, 30]]]).byte()
    assert arithmetic.interpolate(x, "columns", 6, "asymmetric", zero_point=0).tolist() == [[[
        18, 21, 24, 42, 60, 60]]]


def test_max_pool_drops_the_last_odd_row_and_column():
    x = torch.tensor([[[1, 2, 99], [3, 4, 99], [99, 99, 99]]]).byte()
    assert arithmetic.max_pool(x).tolist() == [[[4]]]


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


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("halved", [False, True])
def test_gate_against_a_naive_loop(channels, halved):
    rows, columns = (2, 3) if halved else (4, 6)
    alpha, _, bias = random_operands((channels, rows, columns), (1,), 3)
    skip, _, _ = random_operands((3, 4, 6), (1,), 1)
    m, s = [1 << 14, -(3 << 13), 0], [20, 21, 1]
    y = arithmetic.gate(alpha, skip, bias // 64, torch.tensor(m), torch.tensor(s),
                        zero_points=(200, 31), zero_point=90, low=5, high=250)
    for c in range(3):
        for h in range(4):
            for w in range(6):
                a = alpha[c % channels, h // 2, w // 2] if halved else alpha[c % channels, h, w]
                acc = (int(a) - 200) * (int(skip[c, h, w]) - 31) + int(bias[c] // 64)
                stored = 90 + ((acc * m[c] + (1 << (s[c] - 1))) >> s[c])
                assert y[c, h, w] == min(max(stored, 5), 250)
