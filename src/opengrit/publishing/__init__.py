"""What goes to others: a trained model's card, its export to a folder that others load, and its upload to the hub.

May import `evaluation` and the floors below it. Begin with `card.py`; what a card says is gathered in `facts.py`.
"""
