"""Published results, and which runs answer each of them."""
