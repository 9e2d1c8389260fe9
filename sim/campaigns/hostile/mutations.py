"""Ways to damage bytes, text and JSON, all from one random generator."""

import copy
import json
import math
import struct

__all__ = ["damaged", "damaged_text", "twisted", "written_badly"]

WORDS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF,
         2**63 - 1, 2**63, 2**64 - 1)
FORMATS = ("<B", "<H", ">H", "<I", ">I", "<Q", ">Q")
ODD = (None, True, False, 0, 1, -1, 2, 3, 7, 0.5, -0.5, 1e-300, 1e300, math.inf, -math.inf,
       math.nan, 2**31, 2**53 + 1, 2**63, -2**63, 10**30, 10**400, "", " ", "0", "-1", "none",
       "../../escape", "/etc/passwd", "<script>alert(1)</script>", "[red]x[/]", "[/]", "\x1b[31mx",
       "a\nb", "a\0b", "\ud800", "ü" * 300, "x" * 100_000, [], {}, [[]], [None], {"": 0},
       [0] * 1000)
PIECES = ("", ",", ",,,,", ";", '"', '""', '"a', "\0", "\r", "\n", "\r\n", "\ufeff", "\t", "é",
          "../", "/", "/dev/zero", "~", "*", "'", "`id`", "$(id)", " ", "x" * 140_000,
          "999999999999999999999", "-1", "nan", "phantom:3", "phantom:" + "9" * 5000, ".")


def damaged(random, blob, other=b"", most=4):
    """``blob`` after 1 to ``most`` accidents; ``other`` is where foreign parts come from."""
    blob = bytearray(blob)
    for _ in range(random.randint(1, most)):
        size  = len(blob)
        place = random.randrange(size + 1)
        until = min(size, place + _length(random, size))
        match random.randrange(11):
            case 0 if size:
                for _ in range(random.choice((1, 1, 2, 8, 64))):
                    blob[random.randrange(size)] ^= 1 << random.randrange(8)
            case 1 if size:
                blob[random.randrange(size)] = random.choice((0, 0x7F, 0x80, 0xFF))
            case 2:
                del blob[place:]
            case 3:
                del blob[place:until]
            case 4:
                blob[place:place] = blob[place:until]
            case 5:
                blob[place:place] = random.randbytes(_length(random, 64))
            case 6:
                blob[place:until] = bytes(until - place)
            case 7:
                form = random.choice(FORMATS)
                word = random.choice(WORDS) & ((1 << 8 * struct.calcsize(form)) - 1)
                blob[place:place + struct.calcsize(form)] = struct.pack(form, word)
            case 8 if other:
                start = random.randrange(len(other))
                blob[place:until] = other[start:start + _length(random, len(other))]
            case 9 if random.random() < 0.1:
                blob = bytearray(random.choice((b"", b"\0", blob[:1], random.randbytes(100))))
            case _ if size:
                start = random.randrange(size)
                blob[start:start + 4] = random.randbytes(4)
    return bytes(blob)


def _length(random, most):
    return max(1, min(most, int(2 ** random.uniform(0, 12))))


def damaged_text(random, text, most=4):
    """Bytes of a text file, CSV for one, after accidents to its cells, lines or encoding."""
    for _ in range(random.randint(1, most)):
        lines = text.split("\n")
        row   = random.randrange(len(lines))
        cells = lines[row].split(",")
        cell  = random.randrange(len(cells))
        match random.randrange(9):
            case 0:
                cells[cell] = random.choice(PIECES)
            case 1:
                cells[cell] += random.choice(PIECES)
            case 2:
                del cells[cell]
            case 3:
                cells.insert(cell, random.choice(PIECES))
            case 4:
                random.shuffle(cells)
            case 5:
                lines.insert(random.randrange(len(lines) + 1), lines[row])
            case 6:
                lines[row] = ""
            case 7:
                lines.insert(row, lines[0])
            case 8:
                lines = lines[:row]
        if row < len(lines) and lines[row:]:
            lines[row] = ",".join(cells)
        text = "\n".join(lines)
    encoding = random.choice(("utf-8",) * 12 + ("utf-16", "utf-8-sig", "latin-1", "utf-32"))
    blob = text.encode(encoding, errors="replace")
    return damaged(random, blob, most=2) if random.random() < 0.2 else blob


def twisted(random, value, most=3, odd=ODD):
    """A deep copy of what JSON holds, changed in 1 to ``most`` places."""
    value = copy.deepcopy(value)
    for _ in range(random.randint(1, most)):
        places = list(_places(value))
        if not places:
            return random.choice(odd)
        # All depths alike, or the many leaves would hide what lies above them.
        depth = random.choice(sorted({depth for depth, *_ in places}))
        _, parent, key = random.choice([place for place in places if place[0] == depth])
        old = parent[key]
        match random.randrange(12):
            case 9 | 10 | 11 if type(old) is int:
                parent[key] = random.choice((0, 1, 2, old + 1, max(0, old - 1), 7 * old, 10**12))
            case 0 | 1 | 2:
                parent[key] = copy.deepcopy(random.choice(odd))
            case 3:
                del parent[key]
            case 4:
                _, theirs, name = random.choice(places)
                parent[key] = copy.deepcopy(theirs[name])
            case 5 if isinstance(old, (int, float)) and not isinstance(old, bool):
                parent[key] = random.choice((-old, old + 1, old - 1, old * 1e30, old * 2**40,
                                             float(old), str(old), old / 3))
            case 6 if isinstance(old, (list, dict)) and old:
                if isinstance(old, list):
                    parent[key] = random.choice((old[1:], old[::-1], old * 3, old[:1],
                                                 dict(enumerate(old))))
                else:
                    parent[key] = random.choice((list(old), list(old.values()), dict(
                        list(old.items())[1:])))
            case 7 if isinstance(parent, dict):
                parent[f"{key}_"] = parent.pop(key)
            case _:
                parent[key] = {key: old} if isinstance(key, str) else [old]
    return value


def _places(value, depth=0):
    """(depth, container, key) of everything inside a value."""
    keys = (value if isinstance(value, dict) else range(len(value)) if isinstance(value, list)
            else ())
    for key in list(keys):
        yield depth, value, key
        yield from _places(value[key], depth + 1)


def written_badly(random, value):
    """JSON of a value as bytes: mostly well-formed, with what Python's writer lets pass."""
    text = json.dumps(value)
    match random.randrange(30):
        case 0:
            text = "[" * 100_000
        case 1:
            text = text.replace("0", "1e999", 1)
        case 2:
            text += random.choice((" ", "\0", "{}", ","))
        case 3:
            return text.encode("utf-16")
        case 4 | 5 | 6:
            return damaged(random, text.encode(), most=2)
        case 7:
            text = text.replace("{", '{"frames":3,', 1)
    return text.encode(errors="surrogatepass")
