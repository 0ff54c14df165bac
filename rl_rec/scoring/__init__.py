"""What agents share that score every item by the product of a vector of the state and one of the item."""
