"""How even colormaps are, for all eyes and over photographs; and how `ember` was made.

python -m benchmarks.colours             # the table
python -m benchmarks.colours --make      # the 33 colours of ember, as in render/_colormap.py
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage.color import deltaE_ciede2000, lab2rgb, rgb2lab

from seewhy import samples
from seewhy.render import overlay
from seewhy.render._colormap import colours

NAMES = ("ember", "jet", "turbo", "viridis", "inferno", "plasma", "cividis")
ANCHORS = ("1a1464", "7b1fa0", "d43d6d", "fb8c3c", "fdf28a")  # indigo, violet, red, orange, yellow
POINTS = 33
# Machado, Oliveira and Fernandes 2009, in linear RGB, for eyes without one kind of cone.
EYES = {
    "deuteranope": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "protanope": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "tritanope": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}
Colours = NDArray[np.float64]


def seen(table: Colours, eye: str) -> Colours:
    """Colours (N, 3) as an eye sees them."""
    linear = np.where(table <= 0.04045, table / 12.92, ((table + 0.055) / 1.055) ** 2.4) @ np.array(EYES[eye]).T
    linear = linear.clip(0, 1)
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)


def lightness(table: Colours) -> Colours:
    """L* of colours (N, 3)."""
    return rgb2lab(table[None])[0, :, 0]


def steps(table: Colours) -> Colours:
    """CIEDE2000 from each colour of (N, 3) to the next one."""
    lab = rgb2lab(table[None])[0]
    return deltaE_ciede2000(lab[:-1], lab[1:])


def quarter(name: str) -> float:
    """The least mean CIEDE2000 between a photograph under two values a quarter apart, at the usual opacity."""
    found = []
    for sample in ("chelsea.png", "coffee.png"):
        photo = Image.open(samples.path(sample)).convert("RGB").resize((120, 80))
        painted = [
            rgb2lab(np.asarray(overlay(photo, np.full((2, 2), value), colormap=name)) / 255)
            for value in (0.0, 0.25, 0.5, 0.75, 1.0)
        ]
        found += [deltaE_ciede2000(one, other).mean() for one, other in itertools.pairwise(painted)]
    return float(min(found))


def table() -> str:
    """One row for each map."""
    heads = ["map", "L*", "ever lighter", "steps, spread / mean", *EYES, "quarter steps over photographs"]
    lines = [heads, ["---"] * len(heads)]
    for name in NAMES:
        own = colours(name).astype(np.float64)
        light, even = lightness(own), steps(own)
        lines.append(
            [
                name,
                f"{light[0]:.0f} to {light[-1]:.0f}",
                "yes" if (np.diff(light) > 0).all() else "no",
                f"{even.std() / even.mean():.2f}",
                *("lighter" if (np.diff(lightness(seen(own, eye))) > 0).all() else "not" for eye in EYES),
                f"{quarter(name):.1f}",
            ]
        )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def made() -> list[str]:
    """The anchors joined by a smooth curve in CIELAB, cut into equal steps of CIEDE2000."""
    from scipy.interpolate import PchipInterpolator

    anchors = np.array([list(bytes.fromhex(colour)) for colour in ANCHORS]) / 255
    along = np.concatenate([[0], np.cumsum(steps(anchors))])
    curve = PchipInterpolator(along / along[-1], rgb2lab(anchors[None])[0])
    places = np.linspace(0, 1, 4001)
    fine = np.concatenate([[0], np.cumsum(steps(lab2rgb(curve(places)[None])[0].clip(0, 1)))])
    even = np.interp(np.linspace(0, fine[-1], POINTS), fine, places)
    return [bytes(colour).hex() for colour in np.rint(lab2rgb(curve(even)[None])[0].clip(0, 1) * 255).astype(np.uint8)]


HEAD = """# Colormaps

Written by `PYTHONPATH=src python -m benchmarks.colours`. L* is the lightness of the first and of the last of 256
colours. Steps are CIEDE2000 from each colour to the next one; their spread is the standard deviation. The three columns
of eyes say whether the map is ever lighter for people without one kind of cone (Machado 2009). The last column is the
least mean CIEDE2000 between a photograph under two values a quarter apart, at opacity 0.5, over the two photographs of
the package.
"""

if __name__ == "__main__":
    if "--make" in sys.argv:
        print(made())
    else:
        text = f"{HEAD}\n{table()}\n"
        (Path(__file__).parent / "results" / "colours.md").write_text(text)
        print(text)
