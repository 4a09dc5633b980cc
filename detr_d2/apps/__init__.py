"""What people look at: applications that show what a model sees. Nothing below imports them."""
