"""The hub: Django and Django REST framework."""
