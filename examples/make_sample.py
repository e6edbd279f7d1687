"""Generates a small sample clip to upscale, free of any third-party footage.

The scene, a harbour at dusk, is drawn at four times the final size with numpy alone and then
low-pass filtered down, so its edges are band-limited the way a camera's are.  Run
``python examples/make_sample.py [OUTPUT]``.
"""

import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from numpy.random import Generator, default_rng
from numpy.typing import NDArray

Array = NDArray[np.floating]
Pair = tuple[float, float]

WIDTH, HEIGHT, RATE, FRAMES, SCALE, SOUND_RATE = 320, 180, 30, 120, 4, 48_000
BIG_W, BIG_H = WIDTH * SCALE, HEIGHT * SCALE
HORIZON, RAIL, PARAPET, BAND = 440, 546, 606, 660  # rows of the large picture
CITY_SPEED, QUAY_SPEED, CREDIT_SPEED = 2, 6, 6  # large pixels per frame
SUN_X, SUN_Y, WHEEL_X, WHEEL_Y, WHEEL_R = 400, 342, 1060, 270, 146
SKY = ("191a47", "3c2f72", "8a4583", "e0706f", "ffb877", "ffd9a0")
WALLS = ("231f4b", "2d2558", "382a5f", "1f2450", "43305f")
LIGHTS = ("ffd27a", "ffe6b0", "ff9f6b", "8fd7e0")
LEAF_COUNT, LEAVES = 3600, ("14292c", "1a3836", "23493c", "345c3f", "557043", "8f8646", "c99a52")
INK, CREAM, CORAL = "17142f", "fff1d6", "f2766b"
TITLE = (
    (42, 7.0, "vsr sample"),
    (133, 2.9, "a harbour at dusk"),
    (172, 2.3, "iron, brick, leaves and windows"),
    (205, 1.8, "this is as small as text can get"),
)
CREDITS = "every pixel drawn by a short script - no camera, no stock footage - now make it bigger"
CHORDS = ((41, 57, 60, 64, 67), (43, 55, 59, 62, 69), (45, 55, 60, 64, 71), (36, 55, 60, 64, 67))
MELODY = (72, 76, 79, 84, 74, 79, 83, 81, 76, 79, 84, 88, 79, 76, 74, 72)

# A stroke font made for this clip.  A glyph is a list of curves, a curve a list of grid points
# of two base-36 digits (x, y); row 0 is the ascender, 3 the x-height, 9 the baseline.  Corners
# of curves are cut to round them, except at a point that is written twice.
GLYPHS = """a 565303095956 5359;b 060353590906 0009;c 555303095957;d 565303095956 5059;
e 0656565303094958;f 40101419 0333;g 565303095956 53595c0c0b;h 0009 0603535659;i 0309 0001;
k 0009 43060649;l 0009;m 0309 0503434549 4543838589;n 0309 0603535659;o 060353590906;
p 030c 060353590906;r 0309 060343;s 5453030656590908;t 10161939 0333;u 030609595653 5359;
v 03393963;w 0329294343696983;x 0359 5309;y 0339 632b;, 180b;- 0646"""


def clear_strip(rows: int, speed: int) -> Array:
    """Return clear premultiplied RGBA pixels, wide enough for a pan at this speed."""
    return np.zeros((rows, BIG_W + speed * FRAMES, 4), np.float32)


def paste(picture: Array, strip: Array, left: int) -> None:
    """Draw the part of a strip that is in view over the top rows of the picture."""
    view, target = strip[:, left : left + BIG_W], picture[: len(strip)]
    target += view[..., :3] - target * view[..., 3:]


def tint(code: str) -> Array:
    """Turn a hexadecimal colour into opaque RGBA."""
    return np.array([*bytes.fromhex(code), 255], np.float32) / np.float32(255)


def blend(picture: Array, code: str, cover: Array) -> None:
    """Blend a colour into the picture in place, with `cover` (0..1) as its opacity."""
    mask = np.clip(cover, 0, 1).astype(np.float32)[..., None]
    picture += mask * (tint(code)[: picture.shape[-1]] - picture)


def window(pixels: Array, x: float, y: float, reach: float) -> tuple[Array, Array, Array]:
    """Return the square around a point with its column and row offsets from that point."""
    left, top = max(int(x - reach), 0), max(int(y - reach), 0)
    part = pixels[top : max(int(y + reach) + 2, 0), left : max(int(x + reach) + 2, 0)]
    rows, columns = np.ogrid[: part.shape[0], : part.shape[1]]
    return part, columns + (left - x), rows + (top - y)


def stroke(pixels: Array, points: Sequence[Pair] | Array, width: float, code: str) -> None:
    """Paint a polyline with round joints and ends."""
    (left, top), (right, bottom) = np.min(points, axis=0), np.max(points, axis=0)
    x, y, reach = (left + right) / 2, (top + bottom) / 2, max(right - left, bottom - top) / 2
    part, dx, dy = window(pixels, x, y, reach + width)
    cover = np.zeros(part.shape[:2])
    for (x0, y0), (x1, y1) in pairwise(points):
        vx, vy, ox, oy = x1 - x0, y1 - y0, dx + (x - x0), dy + (y - y0)
        along = np.clip((ox * vx + oy * vy) / max(vx * vx + vy * vy, 1e-6), 0, 1)
        cover = np.maximum(cover, width / 2 + 0.5 - np.hypot(ox - along * vx, oy - along * vy))
    blend(part, code, cover)


def write(pixels: Array, text: str, corner: Pair, unit: float) -> None:
    """Draw text in the stroke font, with grid units of `unit` pixels."""
    glyphs = dict(item.strip().split(" ", 1) for item in GLYPHS.split(";"))
    left, top = corner
    for letter in text:
        curves = glyphs.get(letter, "").split()
        for curve in curves:
            path = np.array([int(digit, 36) for digit in curve], float).reshape(-1, 2)
            for _ in range(3):
                quarter = np.diff(path, axis=0) / 4
                cuts = np.hstack([path[:-1] + quarter, path[1:] - quarter]).reshape(-1, 2)
                path = np.vstack([path[:1], cuts, path[-1:]])
            stroke(pixels, path * unit + (left, top), max(unit * 1.25, 3.0), CREAM)
        left += unit * (2.6 + max((int(x, 36) for curve in curves for x in curve[::2]), default=1))


def noise(rows: int, columns: int, cell: tuple[int, int], rng: Generator) -> Array:
    """Return smooth noise of zero mean and unit deviation, with features of about `cell` pixels."""
    pitch = np.hypot(np.fft.fftfreq(rows)[:, None] * cell[0], np.fft.rfftfreq(columns) * cell[1])
    spectrum = np.fft.rfft2(rng.standard_normal((rows, columns))) / (0.2 + pitch) ** 2
    spectrum[0, 0] = 0
    field = np.fft.irfft2(spectrum, (rows, columns))
    return np.asarray(field / field.std(), np.float32)


def draw_sky(rng: Generator) -> Array:
    """Paint the gradient, the setting sun and the clouds."""
    y, x = np.ogrid[:BIG_H, :BIG_W]
    stops, colours = np.linspace(0, HORIZON, len(SKY)), np.array([tint(code) for code in SKY])
    levels = [np.interp(np.arange(BIG_H), stops, colours[:, channel]) for channel in range(3)]
    picture = np.repeat(np.stack(levels, -1)[:, None], BIG_W, 1).astype(np.float32)
    blend(picture, SKY[-1], 0.55 * np.exp(-np.hypot(x - SUN_X, y - SUN_Y) / 130))
    stroke(picture, [(SUN_X, SUN_Y)] * 2, 132, "fff0c4")
    clouds = np.clip(0.5 * noise(BIG_H, BIG_W, (30, 300), rng), 0, 1)
    blend(picture, "f79a7c", 0.6 * clouds * np.clip(np.minimum(y - 50, HORIZON - y) / 160, 0, 1))
    return picture


def draw_building(pixels: Array, rng: Generator) -> None:
    """Paint one building with a grid of windows, half of them lit."""
    y, x = np.ogrid[: pixels.shape[0], : pixels.shape[1]]
    pixels[:] = tint(rng.choice(WALLS))
    blend(pixels, "c9657c", np.clip(y / 400, 0, 0.4) + 0 * x)
    step_y, step_x = rng.integers((11, 9), (19, 16))
    lit = (rng.random((30, 12)) < 0.5)[y // step_y, x // step_x]
    pane = (y % step_y > 4) & (x % step_x > 3) & (y > 8) & (x < pixels.shape[1] - 3)
    blend(pixels, rng.choice(LIGHTS), (lit & pane) * 1.0)


def draw_city(rng: Generator) -> Array:
    """Paint wooded hills, a cable-stayed bridge, the skyline and the legs of the big wheel."""
    pixels, dark = clear_strip(HORIZON, CITY_SPEED), "2a2150"
    rows, columns = np.arange(HORIZON)[:, None], pixels.shape[1]
    for base, code, light in ((346, "8d5182", "d98386"), (384, "583a72", "9d5a80")):
        cover = np.clip(rows - base - 16 * noise(1, columns, (1, 240), rng), 0, 1)
        blend(pixels, code, cover)
        blend(pixels, light, cover * np.clip(0.25 * noise(HORIZON, columns, (9, 14), rng), 0, 0.5))
    for pylon in (190, 620):
        for stay in range(-12, 13):
            reach = np.sign(stay) * 212 - 16.5 * stay
            stroke(pixels, [(pylon, 246 + 5 * abs(stay)), (pylon + reach, 414)], 2.2, dark)
        stroke(pixels, [(pylon - 12, HORIZON), (pylon, 236), (pylon + 12, HORIZON)], 7, dark)
    for y, thickness in ((404, 1.6), (414, 6)):
        stroke(pixels, [(0, y), (860, y)], thickness, dark)
    for low, high, start in ((110, 290, 870), (50, 130, 760)):
        for x in range(start, columns, 78):
            height, width = rng.integers((low, 50), (high, 92))
            draw_building(pixels[HORIZON - height :, x : x + width], rng)
    pixels[HORIZON - 7 :, 740:] = tint(INK)
    stroke(pixels, [(976, 433), (WHEEL_X, WHEEL_Y), (1144, 433)], 9, CREAM)
    return pixels


def draw_wheel(picture: Array, frame: int) -> None:
    """Paint the turning big wheel; its spokes form a Siemens star."""
    x, turn, step = WHEEL_X - CITY_SPEED * frame, frame * 0.011, np.pi / 18
    part, dx, dy = window(picture, x, WHEEL_Y, WHEEL_R + 4)
    radius, angle = np.hypot(dx, dy), np.abs((np.arctan2(dy, dx) - turn) / step % 1 - 0.5)
    inner = WHEEL_R - 18
    zigzag = np.abs(radius - inner - 36 * angle)
    lines = 2 - np.where(radius < inner, angle * step * radius, zigzag)
    rims = 2.6 - np.minimum(np.abs(radius - WHEEL_R), np.abs(radius - inner))
    blend(part, CREAM, np.maximum(lines * (radius < WHEEL_R), rims))
    stroke(picture, [(x, WHEEL_Y)] * 2, 18, CORAL)
    for cabin in range(12):
        place = turn + cabin * np.pi / 6
        left, top = x + WHEEL_R * np.cos(place), WHEEL_Y + WHEEL_R * np.sin(place)
        stroke(picture, [(left, top + 9)] * 2, 23, (CORAL, LIGHTS[0], "63c3c4")[cabin % 3])
        stroke(picture, [(left - 4, top + 8), (left + 4, top + 8)], 7, INK)


def draw_balloon(picture: Array, frame: int) -> None:
    """Paint a striped hot-air balloon that rises as it turns."""
    x, y, size = 742 - 0.8 * frame, 186 - 0.6 * frame, 62
    stroke(picture, [(x - 14, y + 86), (x - 7, y + 112), (x + 14, y + 86)], 2, INK)
    stroke(picture, [(x - 5, y + 112), (x + 5, y + 112)], 14, INK)
    part, dx, dy = window(picture, x, y, size * 1.4)
    v = dy / size
    half = np.where(v < 0.6, np.sqrt(np.clip(1 - v * v, 1e-6, 1)), 0.8 - 0.75 * (v - 0.6))
    across = np.clip(dx / size / half, -1, 1)
    longitude = np.arcsin(across) + 0.012 * frame
    cover = np.clip((half - np.abs(dx) / size) * size + 0.5, 0, 1) * (np.abs(v - 0.2) < 1.2)
    blend(part, CREAM, cover)
    blend(part, CORAL, cover * np.clip(np.sin(longitude * 8) * size * half / 8 + 0.5, 0, 1))
    belt = 5.5 - np.abs(dy - 12 - 5 * np.sin(longitude * 16))
    blend(part, "3f7f93", np.minimum(cover, belt))
    blend(part, "4a2a5f", cover * np.clip(0.35 * across + 0.25 * v, 0, 0.5))


def draw_water(picture: Array, frame: int) -> None:
    """Mirror the scene in rippling water with a glitter path under the sun."""
    depth, x = np.ogrid[1 : PARAPET - HORIZON + 1, :BIG_W]
    along, far = (x - BIG_W / 2) * 60 / (depth + 12), 60 * np.log(depth + 12.0)
    waves = ((0.05, 0.47, 0.21), (-0.08, 0.39, 0.17), (0.13, 0.61, 0.29), (0, 0.23, 0.1))
    ripple = sum(np.sin(kx * along + kz * far + speed * frame) for kx, kz, speed in waves)
    rows = np.clip(HORIZON - 1 - depth * 1.5 + ripple * (0.6 + depth * 0.055), 0, HORIZON - 1)
    columns = np.clip(x + ripple * (0.6 + depth * 0.03), 0, BIG_W - 1)
    water = picture[HORIZON:PARAPET]
    water[:] = picture[rows.astype(int), columns.astype(int)]
    blend(water, "1d3560", np.full(ripple.shape, 0.36))
    path = np.exp(-(((x - SUN_X) / (36 + depth * 0.7)) ** 2))
    blend(water, "ffe2b0", np.clip(ripple - 1.4, 0, 1) * (0.12 + 0.85 * path))


def draw_tree(pixels: Array, x: int, height: int, rng: Generator) -> None:
    """Paint a trunk, two boughs and a crown of several thousand leaves."""
    top = PARAPET - height
    stroke(pixels, [(x, PARAPET), (x - 6, top + height // 2), (x + 8, top)], 20, "2b1d2e")
    stroke(pixels, [(x - 90, top), (x - 6, top + height // 2), (x + 90, top - 10)], 9, "2b1d2e")
    places = rng.normal(0, 1, (LEAF_COUNT, 2, 2))
    places /= np.linalg.norm(places, axis=2, keepdims=True) / rng.random((LEAF_COUNT, 2, 1)) ** 0.6
    clumps = places[:24, 0] * (130, 84) + (x, top)
    for rank, (offset, lean) in enumerate(places):
        spot = clumps[rank % 24] + offset * (58, 44)
        # Leaves nearer to the sun, on the upper left, are lighter.
        light = 3.6 * rank / LEAF_COUNT - offset.sum() * 1.8 + rng.normal(0, 0.4)
        code = LEAVES[int(np.clip(light, 0, len(LEAVES) - 1))]
        stroke(pixels, [spot, spot + 7 * lean], 7, code)


def draw_quay(rng: Generator) -> Array:
    """Paint the near side: trees, lamps, iron railing, brick parapet and the credit band."""
    pixels = clear_strip(BIG_H, QUAY_SPEED)
    for x, height in ((30, 240), (1860, 310)):
        draw_tree(pixels, x, height, rng)
    for x in (520, 1130, 1640):
        stroke(pixels, [(x, PARAPET), (x, 376), (x - 16, 376), (x + 16, 376)], 7, INK)
        part, dx, dy = window(pixels, x, 350, 130)
        blend(part, LIGHTS[0], 0.8 * np.exp(-np.hypot(dx, dy) / 26))
        stroke(pixels, [(x, 348), (x, 353)], 38, "fff3cf")
    y, across = np.ogrid[: PARAPET - RAIL, : pixels.shape[1]]
    u = across % 24 - 12
    bars = np.where(y > 28, 2.4 - np.abs(u), 2.2 - np.abs(np.hypot(u, y - 16) - 10))
    rails = 3 - np.minimum(np.abs(y - 3), np.abs(y - 29))
    blend(pixels[RAIL:PARAPET], INK, np.maximum(bars, rails))
    y = np.arange(BAND - PARAPET)[:, None] - 10
    shifted = across + 22 * (y // 15 % 2)
    tone = rng.random((8, pixels.shape[1] // 44 + 3))[y // 15, shifted // 44]
    wall = pixels[PARAPET:BAND]
    wall[:] = tint("6d3543")
    blend(wall, "cf855f", 0.15 + 0.6 * tone + 0.1 * noise(len(y), tone.shape[1], (9, 14), rng))
    blend(wall, "3b2238", ((shifted % 44 < 3) | (y % 15 < 3)) * 1.0)
    wall[:10], pixels[BAND:], pixels[BAND : BAND + 4] = tint("e2b08a"), tint(INK), tint(CORAL)
    return pixels


def lowpass(size: int, step: int, first: float) -> Array:
    """Return the matrix of a Lanczos filter that downscales a line of `size` pixels by `step`."""
    distance = (np.arange(size) + 0.5 - first) / step - np.arange(size // step)[:, None]
    taps = np.sinc(distance) * np.sinc(distance / 2) * (np.abs(distance) < 2)
    taps /= taps.sum(1, keepdims=True)
    return np.asarray(taps, np.float32)


def reduce_frame(picture: Array) -> NDArray[np.uint8]:
    """Reduce the large picture to 8-bit limited-range BT.709 planes, chroma sited left."""
    luma = picture @ np.array([0.2126, 0.7152, 0.0722], np.float32)
    blue, red = (picture[..., 2] - luma) / 1.8556, (picture[..., 0] - luma) / 1.5748
    planes, half = [], 2 * SCALE  # chroma keeps half the luma's columns and rows
    plan = ((SCALE, 16, 219, luma), (half, 128, 224, blue), (half, 128, 224, red))
    for step, zero, gain, plane in plan:
        small = lowpass(BIG_H, step, step / 2) @ plane @ lowpass(BIG_W, step, SCALE / 2).T
        planes.append((zero + gain * small).ravel())
    flat = np.clip(np.concatenate(planes) + 0.5, 16, 240)
    return flat.astype(np.uint8).reshape(HEIGHT * 3 // 2, WIDTH)


def make_sound() -> Array:
    """Return two channels of music: slow chords and a melody that alternates left and right."""
    clock = np.arange(SOUND_RATE * FRAMES // RATE) / SOUND_RATE
    notes = [(pitch, i / 4, 0.006, 0.5, 1.3, 0.3 + 0.4 * (i % 2)) for i, pitch in enumerate(MELODY)]
    for second, chord in enumerate(CHORDS):
        notes += [(pitch, second, 0.09, 0.9, 0.7, 0.5) for pitch in chord]
    sound = np.zeros((2, len(clock)))
    for pitch, start, attack, decay, loudness, pan in notes:
        t = np.maximum(clock - start, 0)
        phase = 2 * np.pi * 440 * 2 ** ((pitch - 69) / 12) * t
        partials = (np.sin(phase * n) * np.exp(-t * n / decay) / n**2 for n in range(1, 6))
        sound += np.outer((1 - pan, pan), sum(partials) * (1 - np.exp(-t / attack)) * loudness)
    fade = np.clip((clock[-1] - clock) / 0.6, 0, 1) ** 2
    return np.asarray(np.tanh(0.13 * sound * fade), np.float32)


def render_frames() -> Iterator[NDArray[np.uint8]]:
    """Compose every frame from far to near and reduce it to its final size."""
    rng, title, credit = default_rng(7), clear_strip(HORIZON, 0), clear_strip(60, CREDIT_SPEED)
    sky, city, quay = draw_sky(rng), draw_city(rng), draw_quay(rng)
    for top, unit, text in TITLE:
        write(title, text, (58, top), unit)
    write(credit, CREDITS, (40, 12), 3.4)
    for frame in range(FRAMES):
        picture = sky.copy()
        paste(picture, city, CITY_SPEED * frame)
        for draw in (draw_wheel, draw_balloon, draw_water):
            draw(picture, frame)
        paste(picture, quay, QUAY_SPEED * frame)
        paste(picture, title, 0)
        paste(picture[BAND:], credit, CREDIT_SPEED * frame)
        yield reduce_frame(picture)


def write_clip(path: Path) -> None:
    """Encode picture and sound, tagged as BT.709 so that players do not guess."""
    sound, chunk = make_sound(), SOUND_RATE // RATE
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        # With macroblock tree, x264 made a slightly different file on every run.
        options = {"crf": "20", "aq-mode": "3", "mbtree": "0"}
        video = container.add_stream("libx264", rate=RATE, options=options)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        context = video.codec_context
        context.color_range, context.colorspace = ColorRange.MPEG, Colorspace.ITU709
        context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
        audio = container.add_stream("aac", rate=SOUND_RATE, layout="stereo")
        for number, planes in enumerate(render_frames()):
            picture = av.VideoFrame.from_ndarray(planes, format="yuv420p")
            part = np.ascontiguousarray(sound[:, number * chunk :][:, :chunk])
            samples = av.AudioFrame.from_ndarray(part, format="fltp", layout="stereo")
            samples.sample_rate, samples.pts, picture.pts = SOUND_RATE, number * chunk, number
            container.mux([*video.encode(picture), *audio.encode(samples)])
        container.mux([*video.encode(), *audio.encode()])


if __name__ == "__main__":
    write_clip(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).with_name("sample.mp4"))
