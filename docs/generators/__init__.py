"""One module for each kind of generated text. They read the code; nothing in the code knows of them."""
