"""Safety of text: personal data, red flags, faithfulness, lint."""
