"""What each path answers: the room that joins the wire and the model."""
