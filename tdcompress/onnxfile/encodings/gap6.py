"""gap6: six bits a value say how many zeros come before it; 63 skips 63 zeros. Best from about 93 to 97 % zeros."""

from tdcompress.onnxfile.encodings.frame import FrameEncoding
from tdcompress.onnxfile.encodings.gap import SKIPS_HANDICAP, GapCodec

GAP6 = FrameEncoding(codec=GapCodec(6), slower=SKIPS_HANDICAP)
