"""Fields over the globe from emissions and past fields."""
