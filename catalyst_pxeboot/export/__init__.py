"""What other provisioning systems load of a finished netboot tree, one room for each of them."""
