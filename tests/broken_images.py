"""Image files that break where their head is whole."""

import io

from PIL import Image


def png_with_a_hole() -> bytes:
    """Pillow raises a SyntaxError, "broken PNG file", when its pixels are read."""
    buffer = io.BytesIO()
    Image.effect_noise((300, 300), 100).save(buffer, "PNG")
    content = buffer.getvalue()
    hole = content.index(b"IDAT", content.index(b"IDAT") + 4) - 4  # the head of the second block of pixels
    return content[:hole] + bytes(8) + content[hole + 8 :]
