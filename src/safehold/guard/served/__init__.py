"""The served model as something to read: its activations, its digest, and text that it writes."""
