"""One file per data set; `registry.DATASETS` names them all. Pixels stay uint8 until the network reads them."""
