"""Model files: `reading` reads and checks them, `staging` writes them."""
