# Track conversation statistics
stats = await provider.get_stats()
print(f"Total conversations: {stats['total_conversations']}")
print(f"Total messages: {stats['total_messages']}")
print(f"Average messages per conversation: {stats['avg_messages_per_conversation']}")
print(f"Storage size: {stats['total_storage_size']} bytes")

# Per-user statistics
user_stats = await provider.get_stats(user_id="user-123")
print(f"User conversations: {user_stats['user_conversations']}")
print(f"User messages: {user_stats['user_messages']}")
