"""Questions about drawn images of 400 to 1,500 pixels, which only measure: nothing here is drawn for training."""
