"""Token ids: encoding texts and chats, batches with padding, which tokens are captured."""
