"""The manual: pages in Markdown, and the scripts that keep them true."""
