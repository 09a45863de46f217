"""Look at statements on a server without running them."""
