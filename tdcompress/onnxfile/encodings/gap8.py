"""gap8: one byte a value says how many zeros come before it; 255 skips 255 zeros. Best above about 96 % zeros."""

from tdcompress.onnxfile.encodings.frame import FrameEncoding
from tdcompress.onnxfile.encodings.gap import SKIPS_HANDICAP, GapCodec

GAP8 = FrameEncoding(codec=GapCodec(8), slower=SKIPS_HANDICAP)
