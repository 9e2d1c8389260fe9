"""Why rewritten convolutions are exact: identities of the integers, over all values of a range.

Each is a function of one place of a map; a whole convolution is a sum of them.
"""

from hw.prove.bench import prove


def winograd(d, g):
    """The four products of F(2,3), of which twice the outputs are sums, with twice the transformed
    weights: y = (d0 g0 + d1 g1 + d2 g2, d1 g0 + d2 g1 + d3 g2)."""
    return ((d[0] - d[2]) * g[0],
            (d[1] + d[2]) * (g[0] + g[1] + g[2]),
            (d[2] - d[1]) * (g[0] - g[1] + g[2]),
            (d[1] - d[3]) * g[2])


def doubled(m):
    """Twice the two outputs, from the four products."""
    return 2 * m[0] + m[1] + m[2], m[1] - m[2] - 2 * m[3]


def _row(s):
    return [s.byte(f"d{i}") for i in range(4)], [s.weight(f"g{i}") for i in range(3)]


@prove((winograd, "(d[2] - d[1])", "(d[1] - d[2])"), method="integers")
def f23_is_exact(s):
    """F(2,3): four products give twice both outputs of a three-tap kernel, for all integers."""
    d, g = _row(s)
    y = doubled(winograd(d, g))
    s.equal(y[0], 2 * (d[0] * g[0] + d[1] * g[1] + d[2] * g[2]), "2 y0 = 2 m0 + m1 + m2")
    s.equal(y[1], 2 * (d[1] * g[0] + d[2] * g[1] + d[3] * g[2]), "2 y1 = m1 - m2 - 2 m3")


@prove((winograd, "(d[1] + d[2])", "(d[0] + d[1] + d[2])"), method="integers")
def f23_operands_fit(s):
    """F(2,3) of bytes and int8 weights: transformed data are 10 bits signed, weights 10."""
    d, g = _row(s)
    for value in (d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]):
        s.fits(value, 10, "data")
    for value in (g[0], g[0] + g[1] + g[2], g[0] - g[1] + g[2], g[2]):
        s.fits(value, 10, "weights")
    s.equal(winograd(d, g)[1], (d[1] + d[2]) * (g[0] + g[1] + g[2]), "of two sums")


def upsampled(x, column):
    """A row of a map doubled by nearest: its pixel ``column``."""
    return x[column // 2]


def folded(x, w, column):
    """The two-tap kernel on the map itself that equals three taps on the doubled map."""
    base = column // 2
    if column % 2:
        return (w[0] + w[1]) * x[base] + w[2] * x[base + 1]
    return w[0] * x[base - 1] + (w[1] + w[2]) * x[base]


@prove((folded, "(w[0] + w[1]) * x[base] + w[2]", "w[0] * x[base] + (w[1] + w[2])"),
       method="integers")
def nearest_and_three_taps_fold_into_two(s):
    """Nearest doubling before three taps equals, for even and odd pixels, two taps with summed
    weights: so 3x3 over a doubled map is four 2x2 over the map, exactly."""
    x, w = [s.byte(f"x{i}") for i in range(5)], [s.weight(f"w{i}") for i in range(3)]
    for column in (4, 5):
        s.equal(sum(w[k] * upsampled(x, column - 1 + k) for k in range(3)), folded(x, w, column),
                f"column {column}")
        for number, value in enumerate((w[0] + w[1], w[1] + w[2])):
            s.fits(value, 9, f"summed weights {number}")


def folded_plane(x, w, row, column):
    """The 2x2 kernel on the map that equals 3x3 on the doubled map."""
    return sum(folded(line, taps, column) for line, taps in zip(*_lines(x, w, row)))


def _lines(x, w, row):
    base = row // 2
    if row % 2:
        return ([x[base], x[base + 1]], [[a + b for a, b in zip(w[0], w[1])], w[2]])
    return ([x[base - 1], x[base]], [w[0], [a + b for a, b in zip(w[1], w[2])]])


@prove((_lines, "[[a + b for a, b in zip(w[0], w[1])], w[2]]", "[w[0], w[2]]"), method="integers")
def nearest_and_3x3_fold_into_2x2(s):
    """The same in both directions: 3x3 over a map doubled by nearest is 2x2 over the map, with
    weights that are sums of one, two or four, of 10 bits."""
    x = [[s.byte(f"x{i}{j}") for j in range(4)] for i in range(4)]
    w = [[s.weight(f"w{i}{j}") for j in range(3)] for i in range(3)]
    for row in (2, 3):
        for column in (2, 3):
            want = sum(w[k][m] * x[(row - 1 + k) // 2][(column - 1 + m) // 2]
                       for k in range(3) for m in range(3))
            s.equal(folded_plane(x, w, row, column), want, f"row {row}, column {column}")
    s.fits(w[0][0] + w[0][1] + w[1][0] + w[1][1], 10, "sum of four weights")


def with_zero_point(x, w, zero, bias):
    """A sum over stored bytes, with what the zero point takes away folded into the bias."""
    return sum(a * b for a, b in zip(x, w)) + bias - zero * sum(w)


@prove((with_zero_point, "- zero * sum(w)", "- zero"), method="integers")
def zero_points_fold_into_the_bias(s):
    """``sum(w * (x - zero)) + bias = sum(w * x) + (bias - zero * sum(w))``, and a padded pixel, the
    zero point itself, adds nothing."""
    x, w = [s.byte(f"x{i}") for i in range(4)], [s.weight(f"w{i}") for i in range(4)]
    zero, bias = s.byte("zero"), s.integer("bias")
    s.equal(with_zero_point(x, w, zero, bias),
            sum(b * (a - zero) for a, b in zip(x, w)) + bias, "folded")
    s.equal(with_zero_point([zero] * 4, w, zero, bias), bias, "padding adds nothing")


def offset_binary(x):
    """An int8 value as the machine stores it."""
    return x + 128


@prove((offset_binary, "x + 128", "x + 127"), method="integers")
def int8_is_uint8_with_its_zero_point_moved(s):
    """An int8 tensor is the uint8 tensor of 128 more, with its zero point moved by 128."""
    x, zero = s.integer("x", -128, 127), s.integer("zero", -128, 127)
    s.equal(offset_binary(x) - (zero + 128), x - zero, "the same distance")
    s.fits(offset_binary(x), 8, "a byte", signed=False)


def bilinear(a, b, c, d):
    """One pixel of linear doubling, before rounding: nearest a, then b and c, farthest d."""
    return 9 * a + 3 * b + 3 * c + d


@prove((bilinear, "9 * a", "10 * a"), method="integers")
def linear_doubling_is_separable_and_a_byte(s):
    """Three to one along rows, then along columns, is (9a + 3b + 3c + d); with 8 added and shifted
    right by 4 it is a byte, between the least and the greatest of the four."""
    a, b, c, d = (s.byte(name) for name in "abcd")
    s.equal(3 * (3 * a + b) + (3 * c + d), bilinear(a, b, c, d), "separable")
    y = s.integer("y")
    s.ranges += [16 * y <= bilinear(a, b, c, d) + 8, bilinear(a, b, c, d) + 8 < 16 * y + 16]
    s.fits(y, 8, "a byte", signed=False)
    for limit in (a, b, c, d):
        s.ranges.append(limit <= s.integer("most"))
        s.ranges.append(limit >= s.integer("least"))
    s.check((y <= s.integer("most")), "not above all four")
    s.check((y >= s.integer("least")), "not below all four")


def halves_up(p, s_):
    """The hardware's rounding: shift by one less, add one, shift by one."""
    return (p / 2 ** (s_ - 1) + 1) / 2


@prove((halves_up, "/ 2 ** (s_ - 1) + 1", "/ 2 ** (s_ - 1)"), method="integers")
def rounding_needs_no_variable_addend(s):
    """``(p + 2**(s-1)) >> s = ((p >> (s-1)) + 1) >> 1`` for all p, and every shift of 1 to 47."""
    p = s.integer("p")
    for shift in range(1, 48):
        s.check(halves_up(p, shift) == (p + 2 ** (shift - 1)) / 2 ** shift, f"shift {shift}")


def sum_of_branches(a, b, w, v):
    """Two branches with weights of their own, as a kernel of two rows over both."""
    return a * w + b * v


@prove((sum_of_branches, "b * v", "b * w"), method="integers")
def gates_multiply_differences(s):
    """``(alpha - Za)(skip - Zs)`` is 9 x 9 bits signed and its product fits 18 bits, as the gate's
    registers have it; sums of branches with their own weights are one kernel of two rows."""
    alpha, skip, za, zs = (s.byte(name) for name in ("alpha", "skip", "za", "zs"))
    s.fits(alpha - za, 9, "alpha")
    s.fits(skip - zs, 9, "skip")
    w, v = s.weight("w"), s.weight("v")
    s.equal(sum_of_branches(alpha, skip, w, v), w * alpha + v * skip, "one kernel of two rows")


def accumulated(count):
    """The largest magnitude of ``count`` products of a byte and an int8 weight."""
    return count * 255 * 128


@prove((accumulated, "255 * 128", "255 * 1280"), method="integers")
def sums_fit_32_bits(s):
    """The sum of a 7 x 7 kernel over 1,016 channels, 127 vectors of 8, fits the accumulator; each
    product fits its 16-bit register."""
    x, w = s.byte("x"), s.weight("w")
    for extreme in (-128, 127):
        s.fits(x * extreme, 16, "a product at either end")
    s.check(w * 1 <= 127, "weights")
    s.fits(s.integer("bias", 0, 0) + accumulated(49 * 1016), 32, "the greatest sum")
