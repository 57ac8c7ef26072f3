"""What runs will cost, modelled, recorded and as published."""
