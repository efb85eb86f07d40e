"""One file per training method; `registry.METHODS` names them."""
