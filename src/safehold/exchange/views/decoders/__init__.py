"""One file per encoding, each with a `find`; `safehold.exchange.views.table` lists them."""
