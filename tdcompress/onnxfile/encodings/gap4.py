"""gap4: half a byte a value says how many zeros come before it; 15 skips 15 zeros. Best from about 70 to 96 % zeros."""

from tdcompress.onnxfile.encodings.frame import FrameEncoding
from tdcompress.onnxfile.encodings.gap import SKIPS_HANDICAP, GapCodec

GAP4 = FrameEncoding(codec=GapCodec(4), slower=SKIPS_HANDICAP)
