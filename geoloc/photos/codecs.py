"""The formats that this process can read. Importing this changes Pillow for the whole process, and nothing else here does.

* All of Pillow's own decoders, and HEIF and AVIF by pillow-heif, are registered at once, not when a file of theirs comes.
* Pillow's own limit of pixels goes: it is a warning, and of one size for all. PhotoFile has its own, which is checked
  before any pixel is decoded.
"""

import pillow_heif
from PIL import Image

Image.init()
pillow_heif.register_heif_opener()
Image.MAX_IMAGE_PIXELS = None
