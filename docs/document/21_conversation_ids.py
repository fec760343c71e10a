# Use structured conversation IDs
def create_conversation_id(user_id: str, session_type: str, timestamp: str) -> str:
    return f"{user_id}:{session_type}:{timestamp}"

# Examples:
# "user-123:chat:2024-01-15T10:00:00Z"
# "user-456:support:2024-01-15T14:30:00Z"
# "user-789:onboarding:2024-01-15T16:45:00Z"
