"""What a machine gets of its owner beside the stock image: keys, files, a script, a name."""
