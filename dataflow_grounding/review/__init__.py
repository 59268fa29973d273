"""Looking at results: the static page, and the page to mend them on."""
