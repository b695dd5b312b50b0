"""What an organisation decides and shows: standards, controls and reports."""
