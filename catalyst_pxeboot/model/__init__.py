"""The nouns that all other packages share: settings, loaders, menus, files, architectures."""
