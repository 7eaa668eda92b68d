class Reef:
    """A reef."""

    def grow(self, years):
        """Grows."""

    def shrink(self):
        pass
