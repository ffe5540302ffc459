"""The font of the plots and the script that cut it."""
