"""What other provisioning systems load of a finished netboot tree, one module for each of them."""
