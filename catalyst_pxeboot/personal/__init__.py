"""Read what a machine gets beside the stock image: keys, files, a script, a name."""
