"""The screens: each reads its sources into one value, which a page and the API both show."""
