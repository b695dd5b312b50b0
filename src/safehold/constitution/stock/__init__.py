"""The constitutions that come with the package."""
