"""What other programs call: `import nucseg_batch` gives all of it by name, and loads each when it is first used."""
