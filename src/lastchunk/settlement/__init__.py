"""The waist: everything known about a call becomes one settlement. Pure."""
