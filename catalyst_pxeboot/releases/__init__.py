"""Many netboot trees below one folder: one menu that leads to each of them."""
