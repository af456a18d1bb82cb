"""The figures of stores."""
